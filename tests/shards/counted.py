"""A wrapper around the collectives that counts what this rank sends to others."""

import contextlib
from unittest import mock

import torch.distributed as dist


@contextlib.contextmanager
def counted():
    """A list of the bytes of each collective, without what stays here."""
    sent = []
    swap, gather = dist.all_to_all_single, dist.all_gather

    def all_to_all_single(output, input, output_split_sizes=None, input_split_sizes=None, group=None, **more):
        sizes = list(input_split_sizes)
        sizes[dist.get_rank(group)] = 0
        sent.append(sum(sizes) * input.element_size())
        return swap(output, input, output_split_sizes, input_split_sizes, group=group, **more)

    def all_gather(tensor_list, tensor, group=None, **more):
        sent.append(tensor.nbytes * (len(tensor_list) - 1))
        return gather(tensor_list, tensor, group=group, **more)

    with (
        mock.patch.object(dist, "all_to_all_single", all_to_all_single),
        mock.patch.object(dist, "all_gather", all_gather),
    ):
        yield sent

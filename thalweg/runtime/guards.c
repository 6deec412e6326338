/* The guard table: whether parameters, gradients and states are where they were at the last step. Reading a tensor through
   DLPack's exchange table takes some 50 ns. A tensor whose own fields in memory have not changed need not be read. */
#include <stdint.h>

typedef struct {
    void *data;
    int32_t device_type, device_id, ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} DLTensor;

typedef struct {
    uint32_t major, minor;
    void *previous;
    void *allocator, *from_object, *to_object;
    int (*read)(void *object, DLTensor *out);  /* raises a Python exception where it returns another number than 0 */
    void *stream;
} DLPackExchangeAPI;

/* Where fields lie in bytes, as they were found by trying: in a Python object its type and its tensor; in a tensor its
   storage, and its end behind sizes, strides, offset and dtype; in a storage its end behind the address of its memory. */
typedef struct {
    int64_t type, tensor, storage, tensor_end, storage_end;
    const void *tensor_type, *parameter_type;  /* objects of other types are read through DLPack */
} FieldOffsets;

/* A tensor as it was when it was last read: its address, then its fields, then those of its storage. */
typedef uint64_t Record;

typedef struct {
    const DLPackExchangeAPI *dlpack;
    void *(*attribute)(void *object, void *name);  /* PyObject_GetAttr: a new reference */
    void (*release)(void *object);                 /* Py_DecRef */
    void *(*item)(void *dict, void *key);          /* PyDict_GetItem: a borrowed reference, or nothing */
    int (*next)(void *dict, int64_t *at, void **key, void **value);  /* PyDict_Next: borrowed references */
    void *none, *grad;                             /* None and "grad" */
    const FieldOffsets *fields;                    /* where a tensor has its own, or nothing */
    int64_t size, kinds, numbers;
    int64_t most;               /* dimensions of which a tensor holds sizes and strides in itself */
    int64_t before;             /* entries of the dict before theirs */
    void *states;               /* the dict from parameters to their states, if it holds these in this order */
    void **owner, **state;      /* the parameters and their dicts */
    void **kind;                /* keys of the state's tensors, then of its other entries */
    int64_t *order;             /* these, numbered, as the dicts hold them */
    uint64_t *layout, *place;   /* of the parameters, then of each kind of state */
    int64_t words;              /* of the record of each */
    Record *record;             /* of these, then of the gradients; where it begins with 0, the tensor has to be read */
    uint64_t *gradient;         /* layouts of the gradients */
    void **number;              /* the other entries themselves */
    float **home;               /* where the numbers in them lie side by side */
    uint64_t *address;          /* out: where the gradients lie */
} GuardTable;

static uint64_t mixed(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9E3779B97F4A7C15u;
    return h ^ (h >> 29);
}

/* Device, dtype, shape and strides in one number; the stride of a dimension of one says nothing. */
static uint64_t layout_of(const DLTensor *t)
{
    uint64_t h = mixed(((uint64_t)t->device_type << 32) + (uint32_t)t->device_id, ((uint64_t)t->code << 8) + t->bits);
    for (int i = 0; i < t->ndim; i++) {
        h = mixed(h, (uint64_t)t->shape[i]);
        if (t->shape[i] != 1) h = mixed(h, (uint64_t)t->strides[i]);
    }
    return mixed(h, (uint64_t)t->ndim);
}

static const void *pointer_at(const void *from, int64_t offset)
{
    return *(const void *const *)((const char *)from + offset);
}

/* The tensor of an object whose type is known, or nothing. */
static const uint64_t *tensor_of(const FieldOffsets *fields, const void *object)
{
    const void *type = pointer_at(object, fields->type);
    const int known = type == fields->tensor_type || type == fields->parameter_type;
    return known ? pointer_at(object, fields->tensor) : 0;
}

/* Fields begin behind two words, which are a table of methods and a count of references. */
static int same(const uint64_t *now, const uint64_t *before, int64_t end)
{
    uint64_t difference = 0;
    for (int64_t i = 2; i < end / 8; i++) difference |= now[i] ^ before[i - 2];
    return !difference;
}

/* Whether a tensor's fields, and those of its storage, are what was recorded. */
int matches(const FieldOffsets *fields, const void *object, const Record *recorded)
{
    const uint64_t *tensor = tensor_of(fields, object);
    if (!tensor || recorded[0] != (uint64_t)tensor || !same(tensor, recorded + 1, fields->tensor_end)) return 0;
    return same(pointer_at(tensor, fields->storage), recorded - 1 + fields->tensor_end / 8, fields->storage_end);
}

/* Record what `matches` compares with. */
void record(const FieldOffsets *fields, const void *object, Record *recorded)
{
    const uint64_t *tensor = tensor_of(fields, object);
    const uint64_t *storage = tensor ? pointer_at(tensor, fields->storage) : 0;
    *recorded++ = storage ? (uint64_t)tensor : 0;
    if (!storage) return;
    for (int64_t i = 2; i < fields->tensor_end / 8; i++) *recorded++ = tensor[i];
    for (int64_t i = 2; i < fields->storage_end / 8; i++) *recorded++ = storage[i];
}

/* Layouts and addresses of some tensors; returns how many could be read. */
int64_t describe(const DLPackExchangeAPI *dlpack, void **object, int64_t size, uint64_t *layout, uint64_t *place)
{
    for (int64_t i = 0; i < size; i++) {
        DLTensor t;
        if (dlpack->read(object[i], &t)) return i;
        layout[i] = layout_of(&t);
        place[i] = (uint64_t)t.data + t.byte_offset;
    }
    return size;
}

/* Whether a tensor, the number of which counts parameters first, then each kind of state, then gradients, need not be
   read. */
static int matches_record(const GuardTable *all, const void *object, int64_t number)
{
    return all->fields && matches(all->fields, object, all->record + number * all->words);
}

/* Of more dimensions than a tensor has room for, sizes and strides lie elsewhere: these say nothing. */
static void record_again(const GuardTable *all, const void *object, int64_t number, int64_t ndim)
{
    if (all->fields && ndim <= all->most) record(all->fields, object, all->record + number * all->words);
}

/* Whether a parameter or a state is where it was. */
static int is_at(const GuardTable *all, void *object, int64_t number)
{
    DLTensor t;
    if (matches_record(all, object, number)) return 1;
    if (all->dlpack->read(object, &t) || layout_of(&t) != all->layout[number]) return 0;
    if ((uint64_t)t.data + t.byte_offset != all->place[number]) return 0;
    record_again(all, object, number, t.ndim);
    return 1;
}

/* Whether a parameter's gradient has the layout that it had; finds its address. */
static int is_gradient(const GuardTable *all, void *g, int64_t i)
{
    const int64_t number = (all->kinds + 1) * all->size + i;
    DLTensor t;
    if (matches_record(all, g, number)) return 1;
    if (g == all->none || all->dlpack->read(g, &t) || layout_of(&t) != all->gradient[i]) return 0;
    const uint64_t address = (uint64_t)t.data + t.byte_offset;
    /* where the imaginary part of a number may lie, it may be a view whose sign is yet to be applied */
    int64_t size = 1;
    for (int k = 0; k < t.ndim; k++) size *= t.shape[k];
    if (size == 1 && (address / (t.bits / 8)) % 2) return 0;
    if (size && !address) return 0;  /* a subclass of tensors whose memory is elsewhere */
    all->address[i] = address;
    record_again(all, g, number, t.ndim);
    return 1;
}

/* Whether what is kept under one key is what it was: a tensor by where it lies, another entry by itself. */
static int is_kept(const GuardTable *all, int64_t i, int64_t k, void *value)
{
    if (k >= all->kinds) return value == all->number[(k - all->kinds) * all->size + i];
    return is_at(all, value, (k + 1) * all->size + i);
}

/* The same of all that is kept of one parameter. Its dict is walked, which is faster than to look keys up, as long as it
   holds them in the usual order. */
static int is_state_kept(const GuardTable *all, int64_t i)
{
    const int64_t entries = all->kinds + all->numbers;
    int64_t at = 0, e = 0;
    void *key, *value;
    for (; e < entries && all->next(all->state[i], &at, &key, &value) && key == all->kind[all->order[e]]; e++)
        if (!is_kept(all, i, all->order[e], value)) return 0;
    for (; e < entries; e++) {
        value = all->item(all->state[i], all->kind[all->order[e]]);
        if (!value || !is_kept(all, i, all->order[e], value)) return 0;
    }
    return 1;
}

/* Returns 1 if all parameters and states are where they were, the numbers of all parameters still the same, and all
   gradients of the layout they had. */
int64_t unchanged(const GuardTable *all)
{
    if (all->states) {
        int64_t at = 0, i;
        void *key, *value;
        for (i = -all->before; i < all->size && all->next(all->states, &at, &key, &value); i++)
            if (i >= 0 && (key != all->owner[i] || value != all->state[i])) return 0;
        if (i != all->size) return 0;
    }
    for (int64_t k = 0; k < all->numbers; k++)
        for (int64_t i = 1; i < all->size; i++)
            if (all->home[k][i] != all->home[k][0]) return 0;
    for (int64_t i = 0; i < all->size; i++) {
        if (!is_at(all, all->owner[i], i)) return 0;
        void *g = all->attribute(all->owner[i], all->grad);
        if (!g) return 0;
        const int found = is_gradient(all, g, i);
        all->release(g);  /* the parameter holds it */
        if (!found) return 0;
        if (!is_state_kept(all, i)) return 0;
    }
    return 1;
}

/* Add 1 to each number. */
void count(float *number, int64_t size)
{
    for (int64_t i = 0; i < size; i++) number[i] += 1;
}

/* Guards: whether what a step depends on is what it was at the last one.
   The guard table tells whether parameters, gradients and states are where they were, which parameters have a gradient,
   and which of them take the same numbers of the host. Reading a tensor through DLPack's exchange table takes some
   50 ns. A tensor whose own fields in memory have not changed need not be read. The group table does the same for groups. */
#include <math.h>
#include <stdint.h>
#include <string.h>

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
   storage, and its end behind sizes, strides, offset and dtype; in a storage the address of its memory, and its end
   behind that. */
typedef struct {
    int64_t type, tensor, storage, memory, tensor_end, storage_end;
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
    void (*forget)(void);                          /* PyErr_Clear */
    void *none, *grad;                             /* None and "grad" */
    const FieldOffsets *fields;                    /* where a tensor has its own, or nothing */
    int64_t size, kinds, numbers;
    int64_t most;               /* dimensions of which a tensor holds sizes and strides in itself */
    void *states;               /* the dict from parameters to their states, if it holds these in this order */
    void **owner, **state;      /* the parameters and their dicts */
    void **kind;                /* keys of the state's tensors, then of its other entries */
    int64_t *order;             /* these, numbered, as the dicts hold them */
    uint64_t *layout, *place;   /* of the parameters, then of each kind of state */
    int64_t words;              /* of the record of each */
    Record *record;             /* of these, then of the gradients; where it begins with 0, the tensor has to be read */
    uint64_t *gradient, *seen;  /* layouts that gradients must have to be used as they lie; where each was last seen */
    void **number;              /* the other entries themselves */
    float **home;               /* where the numbers in them lie side by side */
    const int64_t *group;       /* of each parameter */
    int64_t groups;
    int64_t *begins;            /* which of its states begin with the next step, as a number; 0 for none */
    /* found by `look` */
    uint64_t *address;          /* where the gradients lie; 0 where there is none */
    int64_t *moved, moves;      /* parameters that lie elsewhere, or of which a state does; `place` knows where */
    int64_t *odd, odds;         /* parameters whose gradients cannot be used as they lie */
    int64_t present;            /* how many have a gradient */
    /* parameters that take the same numbers of the host have the same entry in a table of those */
    int64_t *entry, entries;
    int64_t *first;             /* of each entry, the first of its parameters */
    int64_t *before_it;         /* of each entry, the one before it of the same group, or -1 */
    int64_t *latest;            /* of each group, its latest entry, or -1 */
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

/* Layouts and addresses of some tensors; returns how many could be read. Where there is a sample, the layouts are those
   of tensors that lie as these do and have its dtype. */
int64_t describe(const DLPackExchangeAPI *dlpack, void **object, int64_t size, void *sample, uint64_t *layout,
                 uint64_t *place)
{
    DLTensor like;
    if (sample && dlpack->read(sample, &like)) return 0;
    for (int64_t i = 0; i < size; i++) {
        DLTensor t;
        if (dlpack->read(object[i], &t)) return i;
        if (sample) t.code = like.code, t.bits = like.bits;
        layout[i] = layout_of(&t);
        place[i] = (uint64_t)t.data + t.byte_offset;
    }
    return size;
}

/* Where in memory some tensors begin and end; returns how many could be read and hold all that lies between, in order. */
int64_t extents(const DLPackExchangeAPI *dlpack, void **object, int64_t size, uint64_t *begin, uint64_t *end)
{
    for (int64_t i = 0; i < size; i++) {
        DLTensor t;
        int64_t elements = 1;
        if (dlpack->read(object[i], &t)) return i;
        for (int k = t.ndim - 1; k >= 0; k--) {
            if (t.shape[k] != 1 && t.strides[k] != elements) return i;
            elements *= t.shape[k];
        }
        begin[i] = (uint64_t)t.data + t.byte_offset;
        end[i] = begin[i] + (uint64_t)elements * (t.bits / 8);
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

/* Whether there is memory for a tensor's elements: `resize_` may have freed its storage. */
static int has_memory(const GuardTable *all, const void *object, const DLTensor *t)
{
    for (int i = 0; i < t->ndim; i++)
        if (!t->shape[i]) return 1;
    const uint64_t *tensor = all->fields ? tensor_of(all->fields, object) : 0;
    if (!tensor) return t->data != 0;
    return pointer_at(pointer_at(tensor, all->fields->storage), all->fields->memory) != 0;
}

/* Whether a parameter or a state has the layout that it had; finds where it lies. */
static int is_as_it_was(const GuardTable *all, void *object, int64_t number, int *moved)
{
    DLTensor t;
    if (matches_record(all, object, number)) return 1;
    if (all->dlpack->read(object, &t)) return all->forget(), 0;
    if (layout_of(&t) != all->layout[number] || !has_memory(all, object, &t)) return 0;
    const uint64_t place = (uint64_t)t.data + t.byte_offset;
    *moved |= place != all->place[number];
    all->place[number] = place;
    record_again(all, object, number, t.ndim);
    return 1;
}

/* Whether one number lies where the imaginary part of a complex one may: it may be a view whose sign is yet to be
   applied. */
static int may_be_imaginary(uint64_t address, int bits)
{
    return (address / (bits / 8)) % 2;
}

/* Whether a gradient can be used as it lies; finds its address. */
static int is_usable(const GuardTable *all, void *g, int64_t i)
{
    const int64_t number = (all->kinds + 1) * all->size + i;
    DLTensor t;
    if (matches_record(all, g, number)) return 1;
    if (all->fields) all->record[number * all->words] = 0;
    if (all->dlpack->read(g, &t)) return all->forget(), 0;
    /* a subclass of tensors may have its memory elsewhere */
    if (layout_of(&t) != all->gradient[i] || !has_memory(all, g, &t)) return 0;
    const uint64_t address = (uint64_t)t.data + t.byte_offset;
    int64_t size = 1;
    for (int k = 0; k < t.ndim; k++) size *= t.shape[k];
    if (size == 1 && may_be_imaginary(address, t.bits)) return 0;
    all->seen[i] = size ? address : 1;  /* nobody reads what has no elements, but 0 would mean that there is none */
    record_again(all, g, number, t.ndim);
    return 1;
}

/* Find a parameter's gradient: its address, or that there is none, or that it is odd. */
static int find_gradient(GuardTable *all, int64_t i)
{
    void *g = all->attribute(all->owner[i], all->grad);
    if (!g) return all->forget(), 0;
    all->address[i] = 0;
    if (g != all->none) {
        const int usable = is_usable(all, g, i);
        all->present++;
        all->address[i] = usable ? all->seen[i] : 1;  /* another than 0; the caller finds that of an odd one */
        if (!usable) all->odd[all->odds++] = i;
    }
    all->release(g);  /* the parameter holds it */
    return 1;
}

/* Whether what is kept under one key is what it was: a tensor by its layout, another entry by itself. */
static int is_kept(const GuardTable *all, int64_t i, int64_t k, void *value, int *moved)
{
    if (k >= all->kinds) return value == all->number[(k - all->kinds) * all->size + i];
    return is_as_it_was(all, value, (k + 1) * all->size + i, moved);
}

/* The same of all that is kept of one parameter. Its dict is walked, which is faster than to look keys up, as long as it
   holds them in the usual order. */
static int is_state_kept(const GuardTable *all, int64_t i, int *moved)
{
    const int64_t entries = all->kinds + all->numbers;
    int64_t at = 0, e = 0;
    void *key, *value;
    for (; e < entries && all->next(all->state[i], &at, &key, &value) && key == all->kind[all->order[e]]; e++)
        if (!is_kept(all, i, all->order[e], value, moved)) return 0;
    for (; e < entries; e++) {
        value = all->item(all->state[i], all->kind[all->order[e]]);
        if (!value || !is_kept(all, i, all->order[e], value, moved)) return 0;
    }
    return 1;
}

/* Whether the dict from parameters to their states still holds these, in their order, among others. */
static int are_states_listed(const GuardTable *all)
{
    int64_t at = 0, i = 0;
    void *key, *value;
    while (i < all->size && all->next(all->states, &at, &key, &value)) {
        if (key != all->owner[i]) continue;
        if (value != all->state[i++]) return 0;
    }
    return i == all->size;
}

/* Whether two parameters take the same numbers of the host. */
static int go_together(const GuardTable *all, int64_t i, int64_t j)
{
    if (all->group[i] != all->group[j] || all->begins[i] != all->begins[j]) return 0;
    for (int64_t k = 0; k < all->numbers; k++)
        if (memcmp(all->home[k] + i, all->home[k] + j, sizeof(float))) return 0;
    return 1;
}

/* Give each parameter that has a gradient its entry. */
static void sort_by_numbers(GuardTable *all)
{
    all->entries = 0;
    for (int64_t g = 0; g < all->groups; g++) all->latest[g] = -1;
    for (int64_t i = 0; i < all->size; i++) {
        if (!all->address[i]) continue;
        const int64_t g = all->group[i];
        int64_t e = all->latest[g];
        while (e >= 0 && !go_together(all, i, all->first[e])) e = all->before_it[e];
        if (e < 0) {
            e = all->entries++;
            all->first[e] = i;
            all->before_it[e] = all->latest[g];
            all->latest[g] = e;
        }
        all->entry[i] = e;
    }
}

/* Look at everything. Returns 0 if something is not what the table was made of: a state replaced, another shape. */
int64_t look(GuardTable *all)
{
    all->moves = all->odds = all->present = 0;
    if (all->states && !are_states_listed(all)) return 0;
    for (int64_t i = 0; i < all->size; i++) {
        int moved = 0;
        if (!is_as_it_was(all, all->owner[i], i, &moved)) return 0;
        if (!find_gradient(all, i)) return 0;
        if (!is_state_kept(all, i, &moved)) return 0;
        if (moved) all->moved[all->moves++] = i;
    }
    sort_by_numbers(all);
    return 1;
}

/* An update has ended: write the numbers of the states, for each kind of them one for each entry. */
void write_numbers(GuardTable *all, const float *value)
{
    for (int64_t i = 0; i < all->size; i++) {
        if (!all->address[i]) continue;
        for (int64_t k = 0; k < all->numbers; k++) all->home[k][i] = value[k * all->entries + all->entry[i]];
        all->begins[i] = 0;
    }
}

/* A parameter group as it was when it was last read: what its dict holds, in its order. An entry is a number that may
   change where it has a lower and an upper bound between which it must lie; else the very object that must be there; or
   nothing, where it does not matter. */
typedef struct {
    void *group;
    int64_t entries;            /* less than 0: nothing is known of it */
    void **key, **value;
    double *number, *low, *high;
    void *list;                 /* of its parameters, and what this holds */
    int64_t params;
    void **param;
} GroupRecord;

typedef struct {
    int (*next)(void *dict, int64_t *at, void **key, void **value);  /* PyDict_Next */
    void *(*type)(void *object);                   /* PyObject_Type: a new reference */
    void (*release)(void *object);                 /* Py_DecRef */
    double (*number)(void *object);                /* PyFloat_AsDouble */
    int64_t (*length)(void *list);                 /* PyList_Size */
    void *(*member)(void *list, int64_t at);       /* PyList_GetItem: a borrowed reference */
    void (*forget)(void);                          /* PyErr_Clear */
    const DLPackExchangeAPI *dlpack;               /* or nothing */
    void *float_type, *tensor_type;
    void *groups;               /* the list of all */
    int64_t size;
    GroupRecord *record;
    /* found by `look_at_groups` */
    int64_t *changed, changes;  /* groups that are what they were, but for numbers */
    int64_t *unread, unreads;   /* groups that must be read */
} GroupTable;

/* The number in a tensor of one, on the CPU, or NaN. */
static double number_in(const GroupTable *all, void *tensor)
{
    DLTensor t;
    if (!all->dlpack) return NAN;
    if (all->dlpack->read(tensor, &t)) return all->forget(), NAN;
    if (t.device_type != 1 || t.code != 2 || !(t.bits == 32 || t.bits == 64) || t.lanes != 1 || !t.data) return NAN;
    for (int i = 0; i < t.ndim; i++)
        if (t.shape[i] != 1) return NAN;
    const char *at = (const char *)t.data + t.byte_offset;
    if (may_be_imaginary((uint64_t)at, t.bits)) return NAN;
    return t.bits == 32 ? *(const float *)at : *(const double *)at;
}

/* Take over a number that may change; whether it is one, and within its bounds. */
static int takes_over(const GroupTable *all, GroupRecord *r, int64_t e, void *value, int *changed)
{
    void *type = all->type(value);
    all->release(type);  /* the object holds it */
    if (type != all->float_type && type != all->tensor_type) return 0;
    const double number = type == all->float_type ? all->number(value) : number_in(all, value);
    if (!(r->low[e] < number && number < r->high[e])) return 0;
    *changed |= number != r->number[e];
    r->number[e] = number;
    return 1;
}

/* Whether the list of a group holds what it held. */
static int are_params_kept(const GroupTable *all, const GroupRecord *r)
{
    if (all->length(r->list) != r->params) return 0;
    for (int64_t k = 0; k < r->params; k++)
        if (all->member(r->list, k) != r->param[k]) return 0;
    return 1;
}

/* Whether a group is what it was, but for numbers. */
static int is_group_kept(const GroupTable *all, GroupRecord *r, int *changed)
{
    int64_t at = 0, e = 0;
    void *key, *value;
    if (r->entries < 0) return 0;
    for (; all->next(r->group, &at, &key, &value); e++) {
        if (e >= r->entries || key != r->key[e]) return 0;
        if (r->low[e] < r->high[e] ? !takes_over(all, r, e, value, changed) : r->value[e] && value != r->value[e])
            return 0;
    }
    return e == r->entries && are_params_kept(all, r);
}

/* Look at all groups. Returns how many are not what they were, or -1 if the list holds others. */
int64_t look_at_groups(GroupTable *all)
{
    all->changes = all->unreads = 0;
    if (all->length(all->groups) != all->size) return -1;
    for (int64_t i = 0; i < all->size; i++)
        if (all->member(all->groups, i) != all->record[i].group) return -1;
    for (int64_t i = 0; i < all->size; i++) {
        int changed = 0;
        if (!is_group_kept(all, all->record + i, &changed)) all->unread[all->unreads++] = i;
        else if (changed) all->changed[all->changes++] = i;
    }
    return all->changes + all->unreads;
}

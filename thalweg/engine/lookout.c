/* Whether tensors lie where they did, asked of torch through DLPack's exchange table: a few nanoseconds each. */
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

typedef struct {
    const DLPackExchangeAPI *dlpack;
    void *(*attribute)(void *object, void *name);  /* PyObject_GetAttr: a new reference */
    void (*release)(void *object);                 /* Py_DecRef */
    void *(*item)(void *dict, void *key);          /* PyDict_GetItem: a borrowed reference, or nothing */
    int (*next)(void *dict, int64_t *at, void **key, void **value);  /* PyDict_Next: borrowed references */
    void *none, *grad;                             /* None and "grad" */
    int64_t size, kinds, numbers;
    int64_t turns, turn;        /* which states are looked at: one in so many, and the first and the last */
    int64_t before;             /* entries of the dict before theirs */
    void *states;               /* the dict from parameters to their states, if it holds these in this order */
    void **owner, **state;      /* the parameters and their dicts */
    void **kind;                /* keys of the state's tensors, then of its other entries */
    uint64_t *layout, *place;   /* of the parameters, then of each kind of state */
    uint64_t *gradient;         /* layouts of the gradients */
    void **number;              /* the other entries themselves */
    float **home;               /* where the numbers in them lie side by side */
    uint64_t *address;          /* out: where the gradients lie */
} Lookout;

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

/* Layouts and addresses of some tensors; returns how many could be read. */
int64_t look(const DLPackExchangeAPI *dlpack, void **object, int64_t size, uint64_t *layout, uint64_t *place)
{
    for (int64_t i = 0; i < size; i++) {
        DLTensor t;
        if (dlpack->read(object[i], &t)) return i;
        layout[i] = layout_of(&t);
        place[i] = (uint64_t)t.data + t.byte_offset;
    }
    return size;
}

static int is_at(const Lookout *all, void *object, uint64_t layout, uint64_t place)
{
    DLTensor t;
    return !all->dlpack->read(object, &t) && layout_of(&t) == layout && (uint64_t)t.data + t.byte_offset == place;
}

/* Returns 1 if all parameters and states are where they were, the numbers of all parameters still the same, and all
   gradients of the layout they had. */
int64_t unmoved(const Lookout *all)
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
        if (!is_at(all, all->owner[i], all->layout[i], all->place[i])) return 0;
        void *g = all->attribute(all->owner[i], all->grad);
        DLTensor t;
        if (!g) return 0;
        const int found = g != all->none && !all->dlpack->read(g, &t) && layout_of(&t) == all->gradient[i];
        all->release(g);  /* the parameter holds it */
        if (!found) return 0;
        const uint64_t address = (uint64_t)t.data + t.byte_offset;
        /* where the imaginary part of a number may lie, it may be a view whose sign is yet to be applied */
        int64_t size = 1;
        for (int k = 0; k < t.ndim; k++) size *= t.shape[k];
        if (size == 1 && (address / (t.bits / 8)) % 2) return 0;
        if (size && !address) return 0;  /* a subclass of tensors whose memory is elsewhere */
        all->address[i] = address;
        if (i % all->turns != all->turn && i && i != all->size - 1) continue;
        for (int64_t k = 0; k < all->kinds; k++) {
            void *kept = all->item(all->state[i], all->kind[k]);
            const int64_t at = (k + 1) * all->size + i;
            if (!kept || !is_at(all, kept, all->layout[at], all->place[at])) return 0;
        }
        for (int64_t k = 0; k < all->numbers; k++)
            if (all->item(all->state[i], all->kind[all->kinds + k]) != all->number[k * all->size + i]) return 0;
    }
    return 1;
}

/* A step more for each. */
void count(float *number, int64_t size)
{
    for (int64_t i = 0; i < size; i++) number[i] += 1;
}

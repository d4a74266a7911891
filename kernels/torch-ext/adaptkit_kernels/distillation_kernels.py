"""The kernels of distillation: the divergence of one row of student logits from a teacher, one Triton program
per row.

Logits are float32 and walked in blocks: once for the two partition sums, once more for the divergence where
    the gradient
needs it (reverse KL, JSD), once for the gradient. Temperature, cross-entropy and gradient share these passes.
Masks end at the strides, multiples of 16, so that accesses stay 16 bytes wide.
"""

from __future__ import annotations

from .launch import jit, rounded, tl


@jit
def _more(largest, total, x):
    """A running (maximum, sum of exp(x - maximum)) with one more block."""
    larger = tl.maximum(largest, tl.max(x, 0))
    return larger, total * tl.exp(largest - larger) + tl.sum(tl.exp(x - larger), 0)


@jit
def _over_mixture(log_a_over_b, share):
    """log(a / (share * b + (1 - share) * a)); the clamp keeps exp finite where one of the two is zero beside
    the other."""
    return -tl.log((1.0 - share) + share * tl.exp(tl.minimum(-log_a_over_b, 80.0)))


@jit
def _terms(p, log_p, q, log_q, beta, KIND: tl.constexpr):
    """(summands of the divergence, dD/dq up to a constant of the row, summands of its mean under q); zero
    where q is."""
    gap = log_q - log_p
    if KIND == 0:
        value = tl.where(p > 0, -p * gap, 0.0)
        return value, value, value
    elif KIND == 1:
        value = tl.where(q > 0, q * gap, 0.0)
        return value, tl.where(q > 0, gap, 0.0), value
    else:
        q_gain = tl.where(q > 0, _over_mixture(gap, beta), 0.0)
        p_gain = tl.where(p > 0, _over_mixture(-gap, 1.0 - beta), 0.0)
        mean = (1.0 - beta) * q * q_gain
        return beta * p * p_gain + mean, (1.0 - beta) * q_gain, mean


@jit
def _store_zeros(row_ptr, stride, BLOCK: tl.constexpr):
    for start in range(0, stride, BLOCK):
        at = start + tl.arange(0, BLOCK)
        tl.store(row_ptr + at, tl.zeros([BLOCK], row_ptr.dtype.element_ty), mask=at < stride)


@jit
def _finite(x, at, vocab_size):
    """Logits for a maximum: -inf, of which a block may be full, would make inf - inf; NaN stays NaN."""
    return tl.where((at >= vocab_size) | (x == -float("inf")), -1e30, x)


@jit
def _partition(row_ptr, stride, vocab_size, cold, BLOCK: tl.constexpr, UNIT: tl.constexpr):
    """Running (maximum, sum) of the logits / temperature and, unless the temperature is 1, of the logits."""
    cold_max, cold_sum, one_max, one_sum = -float("inf"), 0.0, -float("inf"), 0.0
    for start in range(0, vocab_size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = _finite(tl.load(row_ptr + at, mask=at < stride, other=0.0), at, vocab_size)
        cold_max, cold_sum = _more(cold_max, cold_sum, x * cold)
        if not UNIT:
            one_max, one_sum = _more(one_max, one_sum, x)
    return cold_max, cold_sum, one_max, one_sum


@jit
def _log_pair(student_ptr, teacher_ptr, at, student_stride, teacher_stride, cold, s_lse, t_lse):
    """(student's logit, log q, log p) of a block."""
    s = tl.load(student_ptr + at, mask=at < student_stride, other=0.0)
    return s, s * cold - s_lse, tl.load(teacher_ptr + at, mask=at < teacher_stride, other=0.0) * cold - t_lse


@jit
def _divergence(
    student_ptr,
    teacher_ptr,
    student_stride,
    teacher_stride,
    vocab_size,
    cold,
    s_lse,
    t_lse,
    beta,
    BLOCK: tl.constexpr,
    KIND: tl.constexpr,
):
    """(divergence, mean of dD/dq under q) of a row."""
    kds, means = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, vocab_size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        _s, log_q, log_p = _log_pair(
            student_ptr, teacher_ptr, at, student_stride, teacher_stride, cold, s_lse, t_lse
        )
        value, _gain, of_mean = _terms(tl.exp(log_p), log_p, tl.exp(log_q), log_q, beta, KIND)
        kds += tl.where(at < vocab_size, value, 0.0)
        means += tl.where(at < vocab_size, of_mean, 0.0)
    return tl.sum(kds, 0), tl.sum(means, 0)


@jit
def distillation_row(
    student_ptr,
    teacher_ptr,
    out_ptr,
    labels_ptr,
    ce_ptr,
    kd_ptr,
    student_stride,
    teacher_stride,
    out_stride,
    vocab_size,
    cold,
    beta,
    ce_weight,
    kd_slope,
    BLOCK: tl.constexpr,
    KIND: tl.constexpr,
    UNIT: tl.constexpr,
    GRADIENT: tl.constexpr,
    IGNORE: tl.constexpr,
):
    """One row against a full teacher; `cold` is 1 / temperature, UNIT says that it is 1; `out` may be the
    student's memory."""
    row = tl.program_id(0).to(tl.int64)
    student_ptr, teacher_ptr = student_ptr + row * student_stride, teacher_ptr + row * teacher_stride
    out_ptr += row * out_stride
    label = tl.load(labels_ptr + row)
    if label == IGNORE:
        tl.store(ce_ptr + row, 0.0)
        tl.store(kd_ptr + row, 0.0)
        if GRADIENT:
            _store_zeros(out_ptr, out_stride, BLOCK)
        return
    exists = (label >= 0) & (label < vocab_size)
    target = tl.load(student_ptr + tl.where(exists, label, 0))
    nan_if_wrong = tl.where(exists, 0.0, float("nan"))
    s_max, s_sum, one_max, one_sum = _partition(student_ptr, student_stride, vocab_size, cold, BLOCK, UNIT)
    t_max, t_sum, _max, _sum = _partition(teacher_ptr, teacher_stride, vocab_size, cold, BLOCK, True)
    s_lse, t_lse = s_max + tl.log(s_sum), t_max + tl.log(t_sum)
    one_lse = s_lse if UNIT else one_max + tl.log(one_sum)
    tl.store(ce_ptr + row, one_lse - target + nan_if_wrong)
    if KIND != 0 or not GRADIENT:
        kd, mean = _divergence(
            student_ptr,
            teacher_ptr,
            student_stride,
            teacher_stride,
            vocab_size,
            cold,
            s_lse,
            t_lse,
            beta,
            BLOCK,
            KIND,
        )
    else:
        kd, mean = 0.0, 0.0
    if GRADIENT:
        tl.debug_barrier()  # every thread has read the label's logit before one of them overwrites it
        kds = tl.zeros([BLOCK], tl.float32)
        for start in range(0, out_stride, BLOCK):
            at = start + tl.arange(0, BLOCK)
            s, log_q, log_p = _log_pair(
                student_ptr, teacher_ptr, at, student_stride, teacher_stride, cold, s_lse, t_lse
            )
            p, q = tl.exp(log_p), tl.exp(log_q)
            value, gain, _mean = _terms(p, log_p, q, log_q, beta, KIND)
            if KIND == 0:  # the forward KL needs no pass of its own: its gradient does not know it
                kds += tl.where(at < vocab_size, value, 0.0)
            d = (q - p if KIND == 0 else q * (gain - mean)) * kd_slope
            d += ce_weight * (tl.exp(s - one_lse) - tl.where(at == label, 1.0, 0.0)) + nan_if_wrong
            tl.store(
                out_ptr + at,
                rounded(tl.where(at < vocab_size, d, 0.0), out_ptr.dtype.element_ty),
                mask=at < out_stride,
            )
        if KIND == 0:
            kd = tl.sum(kds, 0)
    tl.store(kd_ptr + row, kd + nan_if_wrong)


@jit
def _store_others(
    student_ptr,
    out_ptr,
    student_stride,
    out_stride,
    vocab_size,
    label,
    cold,
    s_lse,
    rest_lse,
    one_lse,
    of_all,
    rest_p,
    ce_weight,
    kd_slope,
    nan_if_wrong,
    BLOCK: tl.constexpr,
    KIND: tl.constexpr,
):
    """The gradient of the tokens that a top-k teacher does not name: their event's, by each one's share of
    it."""
    for start in range(0, out_stride, BLOCK):
        at = start + tl.arange(0, BLOCK)
        s = tl.load(student_ptr + at, mask=at < student_stride, other=0.0)
        d = tl.exp(s * cold - s_lse) * of_all
        if KIND == 0:
            d -= tl.exp(s * cold - rest_lse) * rest_p
        d = d * kd_slope + ce_weight * (tl.exp(s - one_lse) - tl.where(at == label, 1.0, 0.0)) + nan_if_wrong
        tl.store(
            out_ptr + at,
            rounded(tl.where(at < vocab_size, d, 0.0), out_ptr.dtype.element_ty),
            mask=at < out_stride,
        )


@jit
def distillation_top_k_row(
    student_ptr,
    taken_ptr,
    ids_ptr,
    logprobs_ptr,
    targets_ptr,
    out_ptr,
    taken_out_ptr,
    labels_ptr,
    ce_ptr,
    kd_ptr,
    student_stride,
    out_stride,
    kept,
    vocab_size,
    cold,
    beta,
    ce_weight,
    kd_slope,
    min_tail,
    BLOCK: tl.constexpr,
    KEPT: tl.constexpr,
    KIND: tl.constexpr,
    UNIT: tl.constexpr,
    GRADIENT: tl.constexpr,
    IGNORE: tl.constexpr,
):
    """One row against the k tokens of a teacher; `student` holds -inf where the `taken` logits were."""
    row = tl.program_id(0).to(tl.int64)
    student_ptr, out_ptr = student_ptr + row * student_stride, out_ptr + row * out_stride
    slots = tl.arange(0, KEPT)
    mine, places = slots < kept, row * kept + slots
    label = tl.load(labels_ptr + row)
    if label == IGNORE:
        tl.store(ce_ptr + row, 0.0)
        tl.store(kd_ptr + row, 0.0)
        if GRADIENT:
            _store_zeros(out_ptr, out_stride, BLOCK)
            tl.store(taken_out_ptr + places, tl.zeros([KEPT], taken_out_ptr.dtype.element_ty), mask=mine)
        return
    nan_if_wrong = tl.where((label >= 0) & (label < vocab_size), 0.0, float("nan"))
    taken = tl.load(taken_ptr + places, mask=mine, other=-float("inf"))
    log_p = tl.load(logprobs_ptr + places, mask=mine, other=-float("inf"))

    rest_max, rest_sum, one_max, one_sum = _partition(
        student_ptr, student_stride, vocab_size, cold, BLOCK, UNIT
    )
    s_max, s_sum = _more(rest_max, rest_sum, taken * cold)
    one_max, one_sum = (s_max, s_sum) if UNIT else _more(one_max, one_sum, taken)
    rest_lse, s_lse, one_lse = rest_max + tl.log(rest_sum), s_max + tl.log(s_sum), one_max + tl.log(one_sum)
    tl.store(ce_ptr + row, one_lse - tl.load(targets_ptr + row) + nan_if_wrong)

    log_q = taken * cold - s_lse
    p, q, rest_log_q = tl.exp(log_p), tl.exp(log_q), rest_lse - s_lse
    rest_p = tl.maximum(1.0 - tl.sum(p, 0), min_tail)
    value, gain, of_mean = _terms(p, log_p, q, log_q, beta, KIND)
    rest_value, rest_gain, rest_of_mean = _terms(
        rest_p, tl.log(rest_p), tl.exp(rest_log_q), rest_log_q, beta, KIND
    )
    tl.store(kd_ptr + row, tl.sum(tl.where(mine, value, 0.0), 0) + rest_value + nan_if_wrong)
    if GRADIENT:
        mean, mass = tl.sum(tl.where(mine, of_mean, 0.0), 0) + rest_of_mean, tl.sum(p, 0) + rest_p
        is_label = tl.load(ids_ptr + places, mask=mine, other=-1) == label
        d = (q * mass - p if KIND == 0 else q * (gain - mean)) * kd_slope
        d += ce_weight * (tl.exp(taken - one_lse) - tl.where(is_label, 1.0, 0.0)) + nan_if_wrong
        tl.store(taken_out_ptr + places, rounded(d, taken_out_ptr.dtype.element_ty), mask=mine)
        _store_others(
            student_ptr,
            out_ptr,
            student_stride,
            out_stride,
            vocab_size,
            label,
            cold,
            s_lse,
            rest_lse,
            one_lse,
            mass if KIND == 0 else rest_gain - mean,
            rest_p,
            ce_weight,
            kd_slope,
            nan_if_wrong,
            BLOCK,
            KIND,
        )

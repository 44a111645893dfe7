"""Compiled parts of the near/far driver: one level, cluster after cluster.

A block above the diagonal keeps the stride of its first size while its rows and columns shrink.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from understudy.solve.kernels_dense import OPTIONS, cholesky, choose_basis, gram, solve_left
from understudy.solve.kernels_nested import find


@njit(**OPTIONS)
def simulate(count, start, neighbours, mirror, is_near, present):
    """Mark the blocks that eliminating all clusters in order fills.

    Args:
        count: clusters.
        start: CSR of all blocks that could be filled, from both sides.
        neighbours: the other cluster of each.
        mirror: for each entry, the same block seen from the other side.
        is_near: uint8 an entry, whether the two clusters are near.
        present: uint8 an entry, whether the block is there; filled in place.
    """
    close = np.empty(count, np.int64)
    for s in range(count):
        n = 0
        for e in range(start[s], start[s + 1]):
            if present[e] and is_near[e]:
                close[n] = neighbours[e]
                n += 1
        for a in range(n):
            for b in range(a + 1, n):
                e = find(start, neighbours, close[a], close[b])
                present[e] = 1
                present[mirror[e]] = 1


@njit(**OPTIONS)
def fill_panel(s, entries, num, keep, size, current, neighbours, block, block_at, diagonal, pool,
               panel):  # fmt: skip
    """Gather and scale the blocks `entries` of a cluster and the unit; return the end of each."""
    m, column = current[s], keep
    for i in range(num):
        e = entries[i]
        n = neighbours[e]
        at, w = block_at[block[e]], current[n]
        for r in range(m):
            for c in range(w):
                panel[r, column + c] = (
                    pool[at + r * size[n] + c] if s < n else pool[at + c * size[s] + r]
                )
        column += w
    for r in range(m):
        for c in range(m):
            panel[r, column + c] = 1.0 if r == c else 0.0
    solve_left(diagonal, m, panel[:, keep : column + m], column + m - keep)
    return column


@njit(**OPTIONS)
def fill_kept(s, entries, num_far, num, extra, q, current, neighbours, slot_start, slots, phi,
              diagonal, panel, keep):  # fmt: skip
    """Fill the columns to preserve: the cluster's own, one of each far block, and their rest."""
    m = current[s]
    for c in range(q):
        for i in range(m):
            value = 0.0
            for j in range(i, m):
                value += diagonal[i, j] * phi[slots[slot_start[s] + j], c]
            panel[i, c] = value
    column = keep
    if extra:
        for c in range(q):
            for i in range(m):
                panel[i, (num_far + 1) * q + c] = 0.0
    for a in range(num):
        n = neighbours[entries[a]]
        if a < num_far or extra:
            for c in range(q):
                out = (a + 1) * q + c if a < num_far else (num_far + 1) * q + c
                for i in range(m):
                    value = 0.0
                    for j in range(current[n]):
                        value += panel[i, column + j] * phi[slots[slot_start[n] + j], c]
                    panel[i, out] = value if a < num_far else panel[i, out] + value
        column += current[n]


@njit(**OPTIONS)
def update_close(close, num, current, size, neighbours, start, block, block_at, diagonal_at,
                 product, share, present, pool):  # fmt: skip
    """Subtract `share` times a product [N, N] from the blocks among the near clusters."""
    row = 0
    for a in range(num):
        i = neighbours[close[a]]
        column = row
        for b in range(a, num):
            j = neighbours[close[b]]
            if i == j:
                at = diagonal_at[i]
            else:
                e = find(start, neighbours, i, j)
                present[block[e]] = 1
                at = block_at[block[e]]
            for r in range(current[i]):
                for c in range(current[j]):
                    pool[at + r * size[j] + c] -= share * product[row + r, column + c]
            column += current[j]
        row += current[i]


@njit(**OPTIONS)
def compensate(entries, num_far, current, size, neighbours, diagonal_at, panel, k, m, keep, weight,
               pool):  # fmt: skip
    """Add `weight` times what is dropped of each far block, squared, to its diagonal block."""
    column = keep
    for a in range(num_far):
        f = neighbours[entries[a]]
        for i in range(current[f]):
            for j in range(i, current[f]):
                value = 0.0
                for r in range(k, m):
                    value += panel[r, column + i] * panel[r, column + j]
                pool[diagonal_at[f] + i * size[f] + j] += weight * value
        column += current[f]


@njit(**OPTIONS)
def write_pivot(diagonal, panel, m, k, column, out):
    """Write the packed factor where nothing or everything is kept, else `Q^T L^-1`."""
    at = 0
    if k == 0 or k == m:
        for i in range(m):
            for j in range(i, m):
                out[at] = diagonal[i, j]
                at += 1
    else:
        for i in range(m):
            for j in range(m):
                out[at] = panel[i, column + j]
                at += 1


@njit(**OPTIONS)
def reduce_kept(s, m, k, diagonal, panel, slot_start, slots, phi):
    """Replace the vectors to preserve of a cluster by their kept coordinates."""
    for c in range(phi.shape[1]):
        for i in range(k):
            value = panel[i, c]
            if k == m:
                value = 0.0
                for j in range(i, m):
                    value += diagonal[i, j] * phi[slots[slot_start[s] + j], c]
            phi[slots[slot_start[s] + i], c] = value


@njit(**OPTIONS)
def write_back(s, k, entries, num, keep, size, current, neighbours, block, block_at, diagonal_at,
               panel, pool):  # fmt: skip
    """Write the kept rows of a panel back to the blocks, and the unit to the diagonal."""
    column = keep
    for a in range(num):
        n, at = neighbours[entries[a]], block_at[block[entries[a]]]
        for r in range(k):
            for c in range(current[n]):
                value = panel[r, column + c]
                if s < n:
                    pool[at + r * size[n] + c] = value
                else:
                    pool[at + c * size[s] + r] = value
        column += current[n]
    for i in range(k):
        for j in range(k):
            pool[diagonal_at[s] + i * size[s] + j] = 1.0 if i == j else 0.0


@njit(**OPTIONS)
def factor_level(count, size, current, slot_start, slots, phi, diagonal_at, start, neighbours,
                 block, is_near, block_at, present, pool, eps, alpha, skip, pivot_at, pivots,
                 near_at, near, right_at, right, columns):  # fmt: skip
    """Compress and eliminate all clusters of a level, in order.

    Writes what is left of each cluster (`current`), its pivot (packed factor where nothing or
    everything is left), the slots of its near clusters, the coupling with them and their number
    (`columns`). Returns the cluster whose pivot was lost, or -1, and whether anything was dropped
    before.
    """
    q, dropped = phi.shape[1], False
    largest, widest, most = 1, 1, 1
    for s in range(count):
        width, entries = size[s], start[s + 1] - start[s]
        for e in range(start[s], start[s + 1]):
            width += size[neighbours[e]]
        largest, most = max(largest, size[s]), max(most, entries)
        widest = max(widest, width + q * (entries + 2))
    space, products = np.empty(largest * widest), np.empty(widest * widest)
    coupling = np.empty(largest * widest)
    vectors, taus = np.empty((largest, largest)), np.empty(largest)
    norms, work, entries = np.empty(widest), np.empty(widest), np.empty(most, np.int64)
    for s in range(count):
        m = current[s]
        columns[s] = 0
        if m == 0:
            continue
        diagonal = pool[diagonal_at[s] : diagonal_at[s] + m * m].reshape(m, m)
        if not cholesky(diagonal, m):
            return s, dropped
        num, num_far, total, far = 0, 0, 0, 0
        for wanted in range(2):
            for e in range(start[s], start[s + 1]):
                if is_near[e] == wanted and present[block[e]] and current[neighbours[e]] > 0:
                    entries[num] = e
                    num += 1
                    total += current[neighbours[e]]
            if wanted == 0:
                num_far = num
                far = total
        keep = q * (num_far + 1 + (alpha > 0.0)) if num_far else 0
        panel = space[: m * (keep + total + m)].reshape(m, keep + total + m)
        end = fill_panel(s, entries, num, keep, size, current, neighbours, block, block_at,
                         diagonal, pool, panel)  # fmt: skip
        k = 0
        if num_far > 0 and skip:
            k = m
        elif num_far > 0:
            fill_kept(s, entries, num_far, num, alpha > 0.0, q, current, neighbours, slot_start,
                      slots, phi, diagonal, panel, keep)  # fmt: skip
            k = choose_basis(panel, m, keep, keep + far, end + m, eps, True, vectors, taus, norms,
                             work)  # fmt: skip
            if k == m:
                fill_panel(s, entries, num, keep, size, current, neighbours, block, block_at,
                           diagonal, pool, panel)  # fmt: skip
        write_pivot(diagonal, panel, m, k, end, pivots[pivot_at[s] :])
        reduce_kept(s, m, k, diagonal, panel, slot_start, slots, phi)
        if k < m:
            wide = end - keep - far
            matrix = coupling[: (m - k) * wide].reshape(m - k, wide)
            for i in range(m - k):
                for j in range(wide):
                    matrix[i, j] = panel[k + i, keep + far + j]
                    right[right_at[s] + i * wide + j] = matrix[i, j]
            at = near_at[s]
            for a in range(num_far, num):
                n = neighbours[entries[a]]
                for j in range(current[n]):
                    near[at] = slots[slot_start[n] + j]
                    at += 1
            columns[s] = wide
            share = 1.0
            if num_far > 0:
                dropped = True
                if alpha > 0.0:
                    share = 1.0 - alpha
                    compensate(entries, num_far, current, size, neighbours, diagonal_at, panel, k,
                               m, keep, (1.0 / alpha - 1.0) * num_far, pool)  # fmt: skip
            if wide > 0:
                product = products[: wide * wide].reshape(wide, wide)
                gram(matrix, m - k, wide, product)
                update_close(entries[num_far:num], num - num_far, current, size, neighbours,
                             start, block, block_at, diagonal_at, product, share, present,
                             pool)  # fmt: skip
        write_back(s, k, entries, num, keep, size, current, neighbours, block, block_at,
                   diagonal_at, panel, pool)  # fmt: skip
        current[s] = k
    return -1, dropped


@njit(**OPTIONS)
def merge_level(row, column, current, size, block_at, present, pool, to, stride, target):
    """Copy what is left of the blocks to their place in the next level's pool."""
    for t in range(row.size):
        if not present[t]:
            continue
        i, j = row[t], column[t]
        for r in range(current[i]):
            for c in range(current[j]):
                value = pool[block_at[t] + r * size[j] + c]
                target[to[t] + r * stride[t] + c] = value

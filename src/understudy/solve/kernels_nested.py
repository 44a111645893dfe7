"""Compiled parts of the nested-dissection driver; each works on a range of clusters or blocks.

Clusters of a level are numbered with the interiors first. `pool` holds every block of the level;
`*_at` arrays say where. No two calls on different ranges write to the same place, so ranges can
run in threads, and the result does not depend on how they are cut.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from understudy.solve.kernels_dense import (
    OPTIONS,
    basis_columns,
    cholesky,
    choose_basis,
    gram,
    solve_left,
    solve_right,
)


@njit(**OPTIONS)
def find(start, neighbours, row, column):
    """Return the place of `column` in the sorted neighbours of `row`."""
    low, high = start[row], start[row + 1]
    while low < high:
        middle = (low + high) // 2
        if neighbours[middle] < column:
            low = middle + 1
        else:
            high = middle
    return low


@njit(**OPTIONS)
def assemble(lo, hi, indptr, indices, data, node, place, size, diagonal_at, start, neighbours,
             entry_at, entry_width, pool):  # fmt: skip
    """Add the rows `lo` to `hi` of a sparse matrix to their blocks."""
    for u in range(lo, hi):
        a = node[u]
        for e in range(indptr[u], indptr[u + 1]):
            v = indices[e]
            b = node[v]
            if a == b:
                pool[diagonal_at[a] + place[u] * size[a] + place[v]] += data[e]
            elif a < b:
                f = find(start, neighbours, a, b)
                pool[entry_at[f] + place[u] * entry_width[f] + place[v]] += data[e]


@njit(**OPTIONS)
def list_pairs(count, start, neighbours, up_start, up_neighbours, first, source, left, right,
               target):  # fmt: skip
    """List, for each interior, the pairs of its neighbours and the block that each updates.

    `up_*` are the filled blocks above the diagonal; block `first + i` is the diagonal of `i`.
    """
    place = 0
    for s in range(count):
        for a in range(start[s], start[s + 1]):
            i = neighbours[a]
            for b in range(a, start[s + 1]):
                j = neighbours[b]
                source[place], left[place], right[place] = s, a, b
                target[place] = first + i if i == j else find(up_start, up_neighbours, i, j)
                place += 1


@njit(**OPTIONS)
def eliminate(lo, hi, size, diagonal_at, panel_at, width, update_at, pool, updates, failed):
    """Factor interiors, scale their panels and write what they take from their neighbours."""
    for s in range(lo, hi):
        m, n = size[s], width[s]
        diagonal = pool[diagonal_at[s] : diagonal_at[s] + m * m].reshape(m, m)
        if not cholesky(diagonal, m):
            failed[s] = 1
            continue
        if n > 0:
            panel = pool[panel_at[s] : panel_at[s] + m * n].reshape(m, n)
            solve_left(diagonal, m, panel, n)
            gram(panel, m, n, updates[update_at[s] : update_at[s] + n * n].reshape(n, n))


@njit(**OPTIONS)
def subtract(lo, hi, block_at, height, width, start, source, stride, updates, pool):
    """Subtract from blocks `lo` to `hi` what the interiors take from them."""
    for t in range(lo, hi):
        for c in range(start[t], start[t + 1]):
            for i in range(height[t]):
                to, of = block_at[t] + i * width[t], source[c] + i * stride[c]
                for j in range(width[t]):
                    pool[to + j] -= updates[of + j]


@njit(**OPTIONS)
def scale_diagonals(lo, hi, size, diagonal_at, slot_start, slots, phi, pool, failed):
    """Factor the diagonal blocks of clusters that stay and scale the vectors to preserve."""
    for s in range(lo, hi):
        m = size[s]
        diagonal = pool[diagonal_at[s] : diagonal_at[s] + m * m].reshape(m, m)
        if not cholesky(diagonal, m):
            failed[s] = 1
            continue
        for q in range(phi.shape[1]):
            for i in range(m):
                value = 0.0
                for j in range(i, m):
                    value += diagonal[i, j] * phi[slots[slot_start[s] + j], q]
                phi[slots[slot_start[s] + i], q] = value


@njit(**OPTIONS)
def scale_blocks(lo, hi, size, diagonal_at, row, column, block_at, pool):
    """Scale the blocks above the diagonal from both sides."""
    for t in range(lo, hi):
        i, j = row[t], column[t]
        block = pool[block_at[t] : block_at[t] + size[i] * size[j]].reshape(size[i], size[j])
        left = pool[diagonal_at[i] : diagonal_at[i] + size[i] * size[i]]
        right = pool[diagonal_at[j] : diagonal_at[j] + size[j] * size[j]]
        solve_left(left.reshape(size[i], size[i]), size[i], block, size[j])
        solve_right(right.reshape(size[j], size[j]), size[j], block, size[i])


@njit(**OPTIONS)
def gather_panel(s, keep, size, diagonal_at, start, neighbours, block, block_at, slot_start,
                 slots, phi, unit, pool, panel):  # fmt: skip
    """Fill a panel: vectors to preserve, all blocks, `U^-T` (or the unit); return its columns."""
    m, q = size[s], phi.shape[1]
    column = keep
    for c in range(q):
        for i in range(m):
            panel[i, c] = phi[slots[slot_start[s] + i], c]
    for e in range(start[s], start[s + 1]):
        n = neighbours[e]
        at, w = block_at[block[e]], size[n]
        for i in range(m):
            for j in range(w):
                panel[i, column + j] = pool[at + i * w + j] if s < n else pool[at + j * m + i]
        for c in range(q):
            out = (e - start[s] + 1) * q + c
            for i in range(m):
                value = 0.0
                for j in range(w):
                    value += panel[i, column + j] * phi[slots[slot_start[n] + j], c]
                panel[i, out] = value
        column += w
    for i in range(m):
        for j in range(m):
            panel[i, column + j] = 1.0 if i == j else 0.0
    if not unit:
        own = pool[diagonal_at[s] : diagonal_at[s] + m * m].reshape(m, m)
        solve_left(own, m, panel[:, column : column + m], m)
    return column


@njit(**OPTIONS)
def compress(lo, hi, size, diagonal_at, start, neighbours, block, block_at, slot_start, slots,
             phi, new_phi, eps, unit, pool, kept, basis_at, bases, turned_at, turned, pivots,
             ):  # fmt: skip
    """Choose the basis of each cluster and rotate its blocks.

    Writes the number of kept unknowns, the basis [m, k], the rotated blocks [m, N] (`turned`) and
    the pivot [m, m] of each cluster that is compressed.
    """
    q = phi.shape[1]
    largest, widest = 1, 1
    for s in range(lo, hi):
        width = q * (start[s + 1] - start[s] + 1) + size[s]
        for e in range(start[s], start[s + 1]):
            width += size[neighbours[e]]
        largest, widest = max(largest, size[s]), max(widest, width)
    space = np.empty(largest * widest)
    vectors, taus = np.empty((largest, largest)), np.empty(largest)
    norms, work = np.empty(widest), np.empty(max(widest, largest))
    for s in range(lo, hi):
        m = size[s]
        keep = q * (start[s + 1] - start[s] + 1)
        total = keep + m
        for e in range(start[s], start[s + 1]):
            total += size[neighbours[e]]
        panel = space[: m * total].reshape(m, total)
        far = gather_panel(s, keep, size, diagonal_at, start, neighbours, block, block_at,
                           slot_start, slots, phi, unit, pool, panel)  # fmt: skip
        k = choose_basis(panel, m, keep, far, total, eps, False, vectors, taus, norms, work)
        kept[s] = k
        if k == m:
            for c in range(q):
                for i in range(m):
                    new_phi[slots[slot_start[s] + i], c] = phi[slots[slot_start[s] + i], c]
            continue
        basis = bases[basis_at[s] : basis_at[s] + m * k].reshape(m, k)
        basis_columns(vectors, taus, m, k, basis, work)
        for c in range(q):
            for j in range(k):
                value = 0.0
                for i in range(m):
                    value += basis[i, j] * phi[slots[slot_start[s] + i], c]
                new_phi[slots[slot_start[s] + j], c] = value
        for i in range(m):
            at = turned_at[s] + i * (far - keep)
            for j in range(far - keep):
                turned[at + j] = panel[i, keep + j]
            at = basis_at[s] + i * m
            for j in range(m):
                pivots[at + j] = panel[i, far + j]


@njit(**OPTIONS)
def merge_blocks(lo, hi, size, kept, row, column, block_at, entry, width, place, basis_at, bases,
                 turned_at, turned, pool, to, stride, flip, target):  # fmt: skip
    """Write the compressed blocks above the diagonal to their place in the next level's pool."""
    largest = 1
    for t in range(lo, hi):
        largest = max(largest, size[row[t]], size[column[t]])
    work, result = np.empty(largest * largest), np.empty(largest * largest)
    for t in range(lo, hi):
        i, j = row[t], column[t]
        h, w, k = kept[i], size[j], kept[j]
        whole = h == size[i]
        block = work[: h * w].reshape(h, w)
        for r in range(h):
            at = block_at[t] + r * w if whole else turned_at[i] + r * width[i] + place[entry[t]]
            source = pool if whole else turned
            for c in range(w):
                block[r, c] = source[at + c]
        out = block
        if k < w:
            out = result[: h * k].reshape(h, k)
            np.dot(block, bases[basis_at[j] : basis_at[j] + w * k].reshape(w, k), out)
        for r in range(h):
            for c in range(k):
                if flip[t]:
                    target[to[t] + c * stride[t] + r] = out[r, c]
                else:
                    target[to[t] + r * stride[t] + c] = out[r, c]


@njit(**OPTIONS)
def dropped(part, start, neighbours, size, kept, width, place, basis_at, bases, turned_at, turned,
            right_start, right):  # fmt: skip
    """Write the dropped rows of each cluster of `part`, in its neighbours' coordinates then."""
    for o in range(part.size):
        s = part[o]
        at = right_start[o]
        for r in range(kept[s], size[s]):
            base = turned_at[s] + r * width[s]
            for e in range(start[s], start[s + 1]):
                n = neighbours[e]
                k, w = kept[n], size[n]
                of = base + place[e]
                if n > s or k == w:
                    for c in range(w):
                        right[at + c] = turned[of + c]
                    at += w
                else:
                    for c in range(k):
                        right[at + c] = 0.0
                    for x in range(w):
                        factor = turned[of + x]
                        row = basis_at[n] + x * k
                        for c in range(k):
                            right[at + c] += factor * bases[row + c]
                    at += k


@njit(**OPTIONS)
def copy_diagonals(lo, hi, size, diagonal_at, pool, to, stride, within, target):
    """Copy the diagonal blocks of clusters `lo` to `hi` into those of their parents."""
    for s in range(lo, hi):
        m, wide = size[s], stride[s - lo]
        base = to[s - lo] + within[s] * (wide + 1)
        for i in range(m):
            for j in range(m):
                target[base + i * wide + j] = pool[diagonal_at[s] + i * m + j]

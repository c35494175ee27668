"""Patches: rearranging loses nothing, spreading is constant on patches, pooling keeps the mean."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpatch.tokens import merge_patches, pool, share_over_patches, split_patches

seeds = st.integers(0, 2**31 - 1)


@given(seed=seeds, patch=st.sampled_from([1, 2, 4]))
def test_merging_undoes_splitting_to_the_bit(seed, patch):
    image = jr.normal(jr.key(seed), (4, 8, 3))
    sites = split_patches(image, patch)
    assert sites.shape == (4 // patch, 8 // patch, 3 * patch**2)
    assert (merge_patches(sites, patch) == image).all()


def test_a_site_holds_its_own_block():
    image = jnp.arange(4 * 8 * 3.0).reshape(4, 8, 3)
    assert (split_patches(image, 2)[1, 3] == image[2:4, 6:8].reshape(-1)).all()


@given(seed=seeds, patch=st.sampled_from([1, 2, 3, 5, 8]))
def test_spread_field_takes_the_corner_of_its_patch(seed, patch):
    field = np.asarray(jr.uniform(jr.key(seed), (5, 8)))
    spread = share_over_patches(jnp.asarray(field), jnp.asarray(patch))
    expected = [[field[row // patch * patch, col // patch * patch] for col in range(8)] for row in range(5)]
    assert (np.asarray(spread) == np.array(expected)).all()


def test_one_program_spreads_over_all_patch_sizes():
    spread = jax.jit(share_over_patches)
    for patch in (1, 2, 4):
        spread(jnp.zeros((5, 8)), jnp.asarray(patch))
    assert spread._cache_size() == 1


@given(seed=seeds, factor=st.sampled_from([1, 2, 4]))
def test_pooling_keeps_the_mean_and_averages_blocks(seed, factor):
    features = jr.normal(jr.key(seed), (4, 8, 2))
    pooled = pool(features, factor)
    np.testing.assert_allclose(pooled.mean(axis=(0, 1)), features.mean(axis=(0, 1)), atol=1e-6)
    np.testing.assert_allclose(pooled[0, 0], features[:factor, :factor].mean(axis=(0, 1)), atol=1e-6)


@pytest.mark.parametrize("size", [3, 0, -1])
def test_sizes_that_do_not_tile_are_refused(size):
    image = jnp.zeros((4, 8, 2))
    for function in (split_patches, pool):
        with pytest.raises(ValueError, match=f"blocks of {size}x{size} do not tile a grid of 4x8"):
            function(image, size)
    with pytest.raises(ValueError, match="2 features cannot be dealt"):
        merge_patches(image, size)

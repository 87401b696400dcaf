"""Trains a small convolutional network with JAX alone:

    python jax_train.py shards --epochs 5

The loader gives normalised float32 batches [n, H, W, 3], shuffled, flipped and shifted by native threads while the
step before is computed.
"""

import argparse

import jax
import jax.numpy as jnp
import tinyres

WIDTHS = (32, 64, 128)


def init(key, classes):
    """Weights of three convolutions and a linear layer."""
    params, before = [], 3
    for width in WIDTHS:
        key, part = jax.random.split(key)
        params.append(jax.random.normal(part, (3, 3, before, width)) * (2 / (9 * before)) ** 0.5)
        before = width
    return [*params, jax.random.normal(key, (before, classes)) * before**-0.5]


def logits(params, images):
    """f32 [n, classes] of images f32 [n, H, W, 3]."""
    *kernels, head = params
    for kernel in kernels:
        images = jax.lax.conv_general_dilated(
            images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        images = jax.nn.relu(images)
    return images.mean((1, 2)) @ head


def loss(params, images, labels):
    """Mean cross-entropy."""
    scores = jax.nn.log_softmax(logits(params, images))
    return -jnp.take_along_axis(scores, labels[:, None], 1).mean()


@jax.jit
def step(params, images, labels, rate):
    """Weights after a step of gradient descent, and the loss before it."""
    value, gradients = jax.value_and_grad(loss)(params, images, labels)
    return jax.tree.map(lambda weight, gradient: weight - rate * gradient, params, gradients), value


@jax.jit
def correct(params, images, labels):
    """Number of images whose class is the first choice."""
    return (logits(params, images).argmax(1) == labels).sum()


def main():
    """Trains and prints the top-1 accuracy on val after each epoch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shards")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=0.1)
    args = parser.parse_args()

    ds = tinyres.open(args.shards)
    batches = {"dtype": "float32", "layout": "NHWC"}
    train = tinyres.Loader(ds.train, args.batch, flip=True, shift=4, **batches)
    val = tinyres.Loader(ds.val, args.batch, shuffle=False, drop_last=False, **batches)
    params = init(jax.random.key(0), len(ds.train.classes))
    for epoch in range(args.epochs):
        for images, labels in train:
            params, value = step(params, images, labels, args.rate)
        right = sum(int(correct(params, images, labels)) for images, labels in val)
        print(f"epoch {epoch + 1}  loss {value:.3f}  top-1 {right / len(ds.val):.2%}")


if __name__ == "__main__":
    main()

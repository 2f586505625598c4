"""The papers' formulas in NumPy and float64, independent of the package."""

import numpy as np


def unit_length(vectors):
    return vectors / np.sqrt((vectors**2).sum(-1, keepdims=True) + 1e-12)


def unit_length_gradient(vectors, gradient):
    """Gradient of `vectors`, given that of `unit_length(vectors)`."""
    length = np.sqrt((vectors**2).sum(-1, keepdims=True) + 1e-12)
    unit = vectors / length
    along = (unit * gradient).sum(-1, keepdims=True)
    return (gradient - unit * along) / length


def nearest(vectors, codebook):
    """Nearest code of each vector, and by how much it is nearer.

    van den Oord et al., 2017, equation 1: k = argmin_j |z - e_j|, computed as
    it stands there.
    """
    vectors = np.asarray(vectors, "float64")
    codebook = np.asarray(codebook, "float64")
    distances = ((vectors[:, None] - codebook[None]) ** 2).sum(-1)
    ordered = np.sort(distances, axis=1)
    return distances.argmin(1), ordered[:, 1] - ordered[:, 0]


def mean_of_examples(errors, mask=None):
    """Mean over the valid positions of each example, then over examples."""
    if mask is None:
        return errors.mean()
    means = [
        e[m].mean() if m.any() else 0.0
        for e, m in zip(errors, mask, strict=True)
    ]
    return np.mean(means)


def perplexity(indices, codebook_size):
    counts = np.bincount(np.asarray(indices).ravel(), minlength=codebook_size)
    shares = counts[counts > 0] / counts.sum()
    return np.exp(-(shares * np.log(shares)).sum())


class NearestCodeReference:
    """A nearest-code quantizer, from the values of its weights."""

    def __init__(self, quantizer):
        self.l2_normalize = quantizer.l2_normalize
        self.decay = quantizer.decay
        self.table = _float64(quantizer.codebook)
        self.counts = _float64(quantizer.counts)
        self.projections = [
            None if p is None else (_float64(p.kernel), _float64(p.bias))
            for p in (quantizer.project_in, quantizer.project_out)
        ]

    @property
    def codes(self):
        return unit_length(self.table) if self.l2_normalize else self.table

    def projected(self, latents):
        return _affine(_float64(latents), self.projections[0])

    def vectors(self, latents):
        vectors = self.projected(latents)
        return unit_length(vectors) if self.l2_normalize else vectors

    def indices(self, latents):
        """Indices, and which of them are beyond rounding."""
        vectors = self.vectors(latents)
        flat = vectors.reshape(-1, vectors.shape[-1])
        indices, margin = nearest(flat, self.codes)
        shape = vectors.shape[:-1]
        return indices.reshape(shape), (margin > 1e-5).reshape(shape)

    def decoded(self, indices):
        return _affine(self.codes[indices], self.projections[1])

    def losses(self, latents, mask=None):
        indices, _ = self.indices(latents)
        errors = (self.vectors(latents) - self.codes[indices]) ** 2
        value = mean_of_examples(errors.mean(-1), mask)
        return {"commitment": value, "codebook": value}

    # Gradients, by hand. Keys are the paths of the variables.

    def straight_through_gradients(self, latents, gradient):
        """Gradients of a loss whose gradient at `quantized` is `gradient`.

        Section 3.1: the gradient is copied from decoder input to encoder
        output, as if the quantizer were not there.
        """
        result = {}
        if self.projections[1] is not None:
            kernel, _ = self.projections[1]
            indices, _ = self.indices(latents)
            flat = gradient.reshape(-1, gradient.shape[-1])
            codes = self.codes[indices].reshape(-1, kernel.shape[0])
            result["project_out/kernel"] = codes.T @ flat
            result["project_out/bias"] = flat.sum(0)
            gradient = gradient @ kernel.T
        return result | self._backwards(latents, gradient)

    def loss_gradients(self, name, latents):
        """Gradients of one loss term, equation 3 with its two sg[.]."""
        indices, _ = self.indices(latents)
        vectors = self.vectors(latents)
        towards = 2 * (vectors - self.codes[indices]) / vectors.size
        if name == "commitment":
            return self._backwards(latents, towards)
        table = np.zeros_like(self.table)
        np.add.at(table, indices.ravel(), -towards.reshape(-1, table.shape[1]))
        if self.l2_normalize:
            table = unit_length_gradient(self.table, table)
        return {"codebook": table}

    def _backwards(self, latents, gradient):
        """From the vectors back to the latents."""
        if self.l2_normalize:
            gradient = unit_length_gradient(self.projected(latents), gradient)
        if self.projections[0] is None:
            return {"latents": gradient}
        kernel, _ = self.projections[0]
        flat = gradient.reshape(-1, gradient.shape[-1])
        inputs = _float64(latents).reshape(-1, kernel.shape[0])
        return {
            "latents": gradient @ kernel.T,
            "project_in/kernel": inputs.T @ flat,
            "project_in/bias": flat.sum(0),
        }

    # Learning

    def update(self, latents, mask=None):
        """One step of what does not learn by gradient."""
        uses, _ = self.uses(latents, mask)
        self.counts = self.decay * self.counts + (1 - self.decay) * uses

    def uses(self, latents, mask=None):
        """Number and sum of the vectors nearest to each code."""
        indices, _ = self.indices(latents)
        vectors = self.vectors(latents)
        if mask is not None:
            indices, vectors = indices[mask], vectors[mask]
        indices = indices.ravel()
        counts = np.bincount(indices, minlength=len(self.table))
        sums = np.zeros_like(self.table)
        np.add.at(sums, indices, vectors.reshape(-1, sums.shape[1]))
        return counts.astype("float64"), sums

    def state(self):
        """What `update` should have made of the weights."""
        return {"codebook": self.table, "counts": self.counts}


class MovingAverageReference(NearestCodeReference):
    """Codes that are moving averages: appendix A.1, equations 6 to 8.

    The Laplace smoothing is that of Sonnet's example; the stored counts stay
    as they are.
    """

    def __init__(self, quantizer):
        super().__init__(quantizer)
        self.sums = _float64(quantizer.sums)
        self.epsilon = quantizer.epsilon

    def update(self, latents, mask=None):
        uses, sums = self.uses(latents, mask)
        self.counts = self.decay * self.counts + (1 - self.decay) * uses
        self.sums = self.decay * self.sums + (1 - self.decay) * sums
        total = self.counts.sum()
        smoothed = (self.counts + self.epsilon) / (
            total + len(self.counts) * self.epsilon
        )
        self.table = self.sums / (smoothed * total)[:, None]

    def state(self):
        return {**super().state(), "sums": self.sums}


def _affine(vectors, projection):
    if projection is None:
        return vectors
    kernel, bias = projection
    return vectors @ kernel + bias


def _float64(values):
    return np.asarray(values, "float64")

"""Start values of the codebook, from the latents of images."""

from keras_vq.data import named_errors
from keras_vq.trainers import adapting, workers


class AdaptationMixin:
    """`adapt`, and whether it has been called, for models with a quantizer.

    The model has a `quantizer` and its `quantizer_weights`, and defines
    `_collect_latents`.
    """

    def _is_adapted(self) -> bool:
        """Whether the codebook has its start values."""
        return all(level.initialized for level in self.quantizer.levels())

    def _is_ready(self) -> bool:
        """Whether everything that is trained has its start values."""
        return self._is_adapted()

    def _adapt_what_is_new(self, data):
        self.adapt(data)

    @workers.names_lost_workers
    @named_errors()
    def adapt(self, data, latents_per_code: int = 64):
        """Starts the codebook from the latents of the first images.

        `fit` calls this where it is needed. Call it by hand to choose the
        images, or to start an existing codebook over.

        Args:
            data: Images as an array, or a data set as `fit` takes it.
            latents_per_code: Integer. So many latents per code are collected
                (or all there are).
        """
        # Several workers could see different images, or round differently.
        if workers.is_chief(self):
            self._adapt(data, latents_per_code)
        workers.share(self.quantizer_weights, self)

    def _adapt(self, data, latents_per_code):
        levels = self.quantizer.levels()
        if len(levels) > 1 and iter(data) is data:
            raise ValueError(
                "Each level reads the images anew, because it depends on the "
                "coarser ones. Give an array or a data set. Received: "
                f"{type(data).__name__}, which can be read only once"
            )
        for i, level in enumerate(levels):
            wanted = latents_per_code * level.codebook_size
            level.adapt(adapting.first_latents(self, data, wanted, i))

"""Values of a model's variables in the middle of a step on JAX.

There a step is a function of the values of all variables to new ones, and
assigns none. What runs within a `keras.StatelessScope` reads the values that
it is given, and what it assigns is taken from the scope afterwards.
"""

import jax
import keras


class Values:
    """Values of variables; never changed, each change makes new ones.

    Args:
        variables: List of `keras.Variable`.
        values: List of their values.
    """

    def __init__(self, variables, values):
        self._variables = {id(v): v for v in variables}
        self._values = dict(zip(self._variables, values, strict=True))

    @classmethod
    def of_state(cls, groups, state):
        """Those of the lists that Keras gives a step, and of their variables.

        Args:
            groups: List of lists of `keras.Variable`.
            state: List of lists of their values.
        """
        return cls(sum(groups, []), sum(map(list, state), []))

    def of(self, variables) -> list:
        """Values of some of the variables."""
        return [self._values[id(v)] for v in variables]

    def having(self, variables, values):
        """These with other values for some of the variables."""
        changed = zip([id(v) for v in variables], values, strict=True)
        return self._with(dict(changed))

    def run(self, function):
        """Result of a function that sees these values, and those after it.

        Args:
            function: Callable without arguments.
        """
        given = list(self._variables.values())
        mapping = zip(given, self.of(given), strict=True)
        scope = keras.StatelessScope(list(mapping), collect_losses=True)
        with scope:
            result = function()
        return result, self.having(
            given, [scope.get_current_value(v) for v in given]
        )

    def changes(self, after, but=()) -> dict:
        """What others have changed, as a structure that JAX differentiates.

        Args:
            after: Other `Values`, those after `run`.
            but: List of `keras.Variable` to leave out.
        """
        left_out = {id(v) for v in but}
        return {
            name: value
            for name, value in after._values.items()
            if value is not self._values[name] and name not in left_out
        }

    def named(self, changes: dict) -> dict:
        """The present values of what `changes` names."""
        return {name: self._values[name] for name in changes}

    def after(self, changes: dict):
        """These with what `changes` gave."""
        return self._with(changes)

    def where(self, condition, others):
        """These where the condition holds, else the others, for each one."""
        return self._with(
            {
                name: jax.numpy.where(condition, value, other)
                for name, value, other in (
                    (name, value, others._values[name])
                    for name, value in self._values.items()
                )
                if value is not other
            }
        )

    def _with(self, changes):
        new = object.__new__(Values)
        new._variables = self._variables
        new._values = {**self._values, **changes}
        return new

"""Arguments of a constructor as parameters in the sense of scikit-learn, without scikit-learn."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any, Self

import numpy as np


class Parameters:
    """An object whose parameters are the arguments that it was made with, by name: so that
    `sklearn.base.clone`, grid searches and pipelines can use it.

    The constructor keeps its arguments, checked and unchanged, through `_keep`.
    """

    @classmethod
    @functools.cache
    def _defaults(cls) -> dict[str, Any]:
        """The names of the parameters and what they are if not given."""
        known = inspect.signature(cls.__init__).parameters
        return {name: each.default for name, each in known.items() if name != "self"}

    def _check(self, params: Mapping[str, Any]) -> None:
        """Raises for a parameter that does not fit."""
        raise NotImplementedError

    def _changed(self, names: set[str]) -> None:
        """Forgets what depends on these parameters."""
        raise NotImplementedError

    def _keep(self, params: Mapping[str, Any]) -> None:
        """The very objects: clone looks whether the new object has them."""
        given = {name: params[name] for name in self._defaults()}
        self._check(given)
        self.__dict__.update(given)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments that make such an object, as in scikit-learn; `deep` changes nothing.

        Example:
            >>> from fastrnn.reservoir import Reservoir
            >>> Reservoir(3, 50, alpha=0.5).get_params()["alpha"]
            0.5
        """
        return {name: self.__dict__[name] for name in self._defaults()}

    def set_params(self, **params: Any) -> Self:
        """Changes parameters; see the class for what that forgets.

        Returns:
            The object itself.

        Raises:
            TypeError, ValueError: if one is unknown or does not fit. Nothing has changed then.

        Example:
            >>> from fastrnn.reservoir import Reservoir
            >>> Reservoir(3, 50).set_params(alpha=0.5, seed=1)
            Reservoir(3, 50, alpha=0.5, seed=1)
        """
        known = self.get_params()
        for name in params:
            if name not in known:
                raise ValueError(f"{name}: no parameter; expected one of {', '.join(known)}")
        self._check(known | params)
        changed = {name for name, value in params.items() if known[name] is not value}
        self.__dict__.update(params)
        if changed:
            self._changed(changed)
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._defaults():
            self.set_params(**{name: value})
        else:
            super().__setattr__(name, value)

    def __repr__(self) -> str:
        shown = []
        for name, default in self._defaults().items():
            text = _text(self.__dict__[name])
            if default is inspect.Parameter.empty:
                shown.append(text)
            elif text != _text(default):
                shown.append(f"{name}={text}")
        return f"{type(self).__name__}({', '.join(shown)})"


def _text(value: Any) -> str:
    """A parameter in a repr; dots for what is large."""
    if isinstance(value, (type, np.dtype)):
        return np.dtype(value).name
    if isinstance(value, np.generic):
        value = value.item()
    plain = value is None or isinstance(value, (bool, int, float, str, tuple))
    return repr(value) if plain else "..."

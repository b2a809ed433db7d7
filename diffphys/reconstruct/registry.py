"""Which methods there are: the package's own, those registered by a user, those of installed packages; names spelled freely.

A method is a function (problem, *, options..., callback) -> Solution. The package's own names cannot be taken.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence

from diffphys import installed
from diffphys.reconstruct import blind_spot, learned, pnp, richardson_lucy, sampling, splitting, tv, wiener
from diffphys.reconstruct.iterate import Solution
from diffphys.spec import did_you_mean

Method = Callable[..., Solution]
METHODS: dict[str, Method] = {
    "richardson_lucy": richardson_lucy.richardson_lucy,
    "richardson_lucy_tv": richardson_lucy.richardson_lucy_tv,
    "wiener": wiener.wiener,
    "tv": tv.tv,
    "pnp_fista": pnp.pnp_fista,
    "unet": learned.unet,
    "care": learned.care,
    "resunet": learned.resunet,
    "restormer": learned.restormer,
    "restormer_plus": learned.restormer_plus,
    "deconvformer": learned.deconvformer,
    "swinir": learned.swinir,
    "pnp_dncnn": splitting.pnp_dncnn,
    "ircnn": splitting.ircnn,
    "noise2void": blind_spot.noise2void,
    "diffdeconv": sampling.diffdeconv,
    "scoremicro": sampling.scoremicro,
    "diffusionmicro": sampling.diffusionmicro,
}
ALIASES = {
    "rl": "richardson_lucy",
    "rl_tv": "richardson_lucy_tv",
    "wiener_3d": "wiener",
    "wiener_filter": "wiener",
    "pnp": "pnp_fista",
    "tv_deconvolution": "tv",
    "total_variation": "tv",
    "u_net": "unet",
    "u_net_3d": "unet",
    "unet_3d": "unet",
    "restormer_3d": "restormer",
    "restormer+": "restormer_plus",
    "swinir_3d": "swinir",
    "dncnn": "pnp_dncnn",
    "ircnn_confocal": "ircnn",
    "n2v": "noise2void",
}
OWN = frozenset(METHODS) | frozenset(ALIASES)


def register_method(name: str, function: Method, *, aliases: Sequence[str] = (), replace: bool = False) -> None:
    """Make a method known to `reconstruct` by a name, spelled as freely as the package's own.

    Args:
        name: letters, digits and `_` in its plain form; no name or alias of the package.
        function: (problem, *, options..., callback) -> `Solution`; every option has a default.
        aliases: other names.
        replace: take the place of a method registered before under the same names (a notebook's cell run again).

    Raises:
        ValueError: in one line, for a name that is taken or a signature that `reconstruct` cannot call.
    """
    key, *others = [plain(n) for n in (name, *aliases)]
    before = {key, *(a for a, target in ALIASES.items() if target == key)} if replace else set()
    for one in (key, *others):
        if not one or one in OWN or one in {*METHODS, *ALIASES} - before:
            how = "it is the package's own" if one in OWN else "pass replace=True to replace it" if one else "it is empty"
            raise ValueError(f"method name {one!r} cannot be registered: {how}; or choose another name")
    expect_signature(key, function)
    unregister_method(key)
    METHODS[key] = function
    ALIASES.update(dict.fromkeys(others, key))


def unregister_method(name: str) -> None:
    """Forget a registered method and its aliases; the package's own stay."""
    key = plain(name)
    if key in OWN:
        raise ValueError(f"method {key!r} is the package's own and cannot be unregistered")
    METHODS.pop(key, None)
    for alias in [a for a, target in ALIASES.items() if target == key]:
        del ALIASES[alias]


def expect_signature(name: str, function: Method) -> None:
    """Raise unless the function is (problem, *, options..., callback), every option with a default."""
    if not callable(function):
        raise ValueError(f"method {name!r} is {function!r}; expected a function of a Problem")
    parameters = list(inspect.signature(function).parameters.values())
    first, options = parameters[:1], parameters[1:]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not first or first[0].kind not in positional or first[0].name != "problem":
        trouble = "its first argument is not `problem`"
    elif loose := [str(p) for p in options if p.kind is not p.KEYWORD_ONLY]:
        trouble = f"{loose} must be keyword-only"
    elif needed := [p.name for p in options if p.default is p.empty]:
        trouble = f"{needed} have no default"
    elif "callback" not in [p.name for p in options]:
        trouble = "it takes no `callback`"
    else:
        return
    raise ValueError(f"method {name!r}: {trouble}; expected (problem, *, option=..., callback=None) -> Solution")


def plain(name: str) -> str:
    """Any spelling -> lower case and underscores."""
    return re.sub(r"[^a-z0-9+]+", "_", name.lower()).strip("_")


def known_methods() -> list[str]:
    """All names, those of installed packages included; aliases are left out."""
    return sorted({*METHODS, *map(plain, installed.names(installed.METHODS))})


def method_name(method: str) -> str:
    """The registry's name for any spelling: "Richardson-Lucy", "Wiener-3D", "TV-Deconvolution", ..."""
    key = plain(method)
    key = ALIASES.get(key, key)
    if key not in METHODS and not _from_package(key):
        known = known_methods()
        raise ValueError(f"method is {method!r}; expected one of {known}{did_you_mean(key, known)}")
    return key


def _from_package(key: str) -> bool:
    """Register the method that an installed package offers under this name, if one does."""
    name = next((n for n in installed.names(installed.METHODS) if plain(n) == key), None)
    if name is None:
        return False
    register_method(key, installed.load(installed.METHODS, name))
    return True

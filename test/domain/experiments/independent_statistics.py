"""The statistics of experiments, computed by scipy and statsmodels from the values instead of from sums."""

import json
import sys

import numpy as np
from scipy import integrate, optimize, special, stats


def difference(case):
    """Of ratios or means: a regression over calls, with errors that are clustered by subject."""
    import statsmodels.api as sm  # Takes seconds.

    rows = [(y, g, s) for g in (0, 1) for s, calls in enumerate(case["calls"][g]) for y in calls]
    y = np.array([row[0] for row in rows], dtype=float)
    g = np.array([row[1] for row in rows], dtype=float)
    groups = np.array([row[1] * 1_000_000 + row[2] for row in rows])
    fit = sm.OLS(y, sm.add_constant(g)).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    return {"control": fit.params[0], "difference": fit.params[1], "error": fit.bse[1]}


def welch(case):
    a, b = np.array(case["variant"]), np.array(case["control"])
    test = stats.ttest_ind(a, b, equal_var=False)
    return {"difference": a.mean() - b.mean(), "error": (a.mean() - b.mean()) / test.statistic}


def log_ratio(z, information):
    """The mixture of likelihood ratios over effects from a normal distribution, by integration."""
    density = lambda t: np.exp(t * z - t * t / 2 - t * t / 2 / information) / np.sqrt(2 * np.pi * information)
    center = z / (1 + 1 / information)
    value, _ = integrate.quad(density, center - 12, center + 12, epsabs=0, epsrel=1e-11, limit=500)
    return np.log(value)


def boundary(case):
    alpha = case["alpha"]
    # The exact optimum, where ours is an approximation.
    exact = (-special.lambertw(-alpha**2 / np.e, -1).real - 1) / case["tuned"]
    evidence = -2 * np.log(alpha)
    information = case["subjects"] * (evidence + np.log1p(evidence)) / case["tuned"]
    root = optimize.brentq(lambda z: log_ratio(z, information) + np.log(alpha), 1, 20, xtol=1e-12)
    best = optimize.brentq(lambda z: log_ratio(z, case["subjects"] * exact) + np.log(alpha), 1, 20, xtol=1e-12)
    return {"boundary": root, "optimal": best, "p": min(1, np.exp(-log_ratio(case["z"], information)))}


def relative(case):
    """The ratios for which a contrast is 0, by search instead of by a formula."""
    v, c, vv, cc, width = (case[key] for key in ("variant", "control", "variantError", "controlError", "width"))
    distance = lambda q: (v - q * c) ** 2 - width**2 * (vv**2 + q**2 * cc**2)
    center = v / c
    return {
        "low": optimize.brentq(distance, center - 50, center, xtol=1e-13) - 1,
        "high": optimize.brentq(distance, center, center + 50, xtol=1e-13) - 1,
    }


def sample_ratio(case):
    shares = np.array(case["weights"]) / sum(case["weights"])
    counts, total = case["counts"], sum(case["counts"])
    mixture = stats.dirichlet_multinomial.logpmf(counts, case["concentration"] * shares, total)
    return {"p": min(1, np.exp(stats.multinomial.logpmf(counts, total, shares) - mixture))}


def quantile(case):
    """The counts at which a share is excluded, by search through all of them."""
    n, share, a = case["calls"], case["share"], case["concentration"]
    k = np.arange(n + 1)
    ratio = stats.betabinom.logpmf(k, n, a * share, a * (1 - share)) - stats.binom.logpmf(k, n, share)
    kept = k[ratio < -np.log(case["alpha"])]
    return {"least": int(kept.min()), "most": int(kept.max())}


def power(case):
    error = case["error"] / np.sqrt(case["needed"])
    return {"power": stats.norm.sf(case["boundary"] - case["effect"] / error)}


def chi_square(case):
    return {"quantile": stats.chi2.ppf(case["share"], case["freedom"])}


KINDS = {
    "difference": difference,
    "welch": welch,
    "boundary": boundary,
    "relative": relative,
    "sample ratio": sample_ratio,
    "quantile": quantile,
    "power": power,
    "chi-square": chi_square,
}

for line in sys.stdin:
    case = json.loads(line)
    print(json.dumps({key: float(value) for key, value in KINDS[case["kind"]](case).items()}), flush=True)

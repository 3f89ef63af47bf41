import { serveJobs } from '../script.js';
import { peek } from './peeking.js';
import { peekAtQuantiles, QUANTILE_SCENARIOS } from './quantiles.js';
import { mismatches } from './sample_ratios.js';
import { DIFFERENT_SCENARIOS, NULL_SCENARIOS } from './scenarios.js';
import type { Scenario } from './traffic.js';

/* A process that simulates experiments; the unit tests do the same with fewer runs. */

export interface SimulationJob {
  readonly runs: number;
}
export interface SimulationResult {
  readonly lines: readonly {
    readonly name: string;
    readonly runs: number;
    /** Runs in which an interval, absolute or relative, does not contain the true difference at some time. */
    readonly wrong: number;
    readonly level: 'alpha' | 'mismatch';
    readonly naive?: number;
    /** Runs in which a planted difference is found. */
    readonly found?: number;
  }[];
}

const isPlanted = ({ means }: Scenario) => means.some((mean) => mean !== means[0]);

serveJobs(async ({ runs }: SimulationJob): Promise<SimulationResult> => {
  const means = [...NULL_SCENARIOS, ...DIFFERENT_SCENARIOS].map((scenario) => {
    const { missed, relativeMissed, naiveMissed, different } = peek(scenario, runs);
    const found = isPlanted(scenario) ? { found: different } : {};
    const wrong = Math.max(missed, relativeMissed);
    return { name: scenario.name, runs, wrong, level: 'alpha' as const, naive: naiveMissed, ...found };
  });
  const quantiles = QUANTILE_SCENARIOS.map((scenario) => {
    const { missed, different } = peekAtQuantiles(scenario, Math.ceil(runs / 4));
    const found = isPlanted(scenario) ? { found: different } : {};
    return { name: scenario.name, runs: Math.ceil(runs / 4), wrong: missed, level: 'alpha' as const, ...found };
  });
  const ratios = [
    [5000, 5000],
    [9000, 500, 500],
  ].map((weights) => {
    const wrong = mismatches({ weights, subjects: 3_000, lost: 0 }, runs);
    return { name: `sample ratio, ${weights.join(' to ')}`, runs, wrong, level: 'mismatch' as const };
  });
  return { lines: [...means, ...quantiles, ...ratios] };
});

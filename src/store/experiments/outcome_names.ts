import { limits } from '../../limits.js';

/** The names of outcomes that the metrics of an experiment use. */
export type MetricNames = (experimentId: number) => ReadonlySet<string>;

/**
 * The names of outcomes by experiment, up to their limit. The names that its metrics use have their places, also before
 * the first outcome: other names must not keep the primary metric from being recorded. They have a limit too, because a
 * guardrail can be replaced.
 */
export class OutcomeNames {
  private readonly byExperiment = new Map<number, Set<string>>();

  constructor(
    private readonly metricNames: MetricNames,
    known: readonly (readonly [experimentId: number, name: string])[],
  ) {
    for (const [id, name] of known) this.of(id).add(name);
  }

  /** @returns whether the experiment has the name now. */
  add(experimentId: number, name: string): boolean {
    const names = this.of(experimentId);
    const reserved = this.metricNames(experimentId);
    const isFull = reserved.has(name)
      ? names.size >= limits.outcomeNames.all
      : new Set([...names, ...reserved]).size >= limits.outcomeNames.others;
    if (isFull && !names.has(name)) return false;
    names.add(name);
    return true;
  }

  private of(id: number): Set<string> {
    const names = this.byExperiment.get(id) ?? new Set();
    this.byExperiment.set(id, names);
    return names;
  }
}

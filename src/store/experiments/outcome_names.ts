import { limits } from '../../limits.js';

/** The names of outcomes that the metrics of an experiment use. */
export type MetricNames = (experimentId: number) => ReadonlySet<string>;

/**
 * The names of outcomes by experiment, up to their limit. The names that the metrics of an experiment use are reserved
 * before their first outcome, so that other names cannot prevent the primary metric from being recorded. Names of metrics
 * have a limit too, because guardrails can be replaced.
 */
export class OutcomeNames {
  private readonly byExperiment = new Map<number, Set<string>>();

  constructor(
    private readonly metricNames: MetricNames,
    known: readonly (readonly [experimentId: number, name: string])[],
  ) {
    for (const [id, name] of known) this.of(id).add(name);
  }

  /** @returns false: the limit of names is reached. */
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

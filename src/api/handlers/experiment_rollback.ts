import type { Draft } from '../../domain/draft.js';
import { withBuckets } from '../../domain/experiments/experiment.js';
import { checkVariants, fixedFields } from '../../domain/experiments/experiment_check.js';
import { hasStarted, isActive } from '../../domain/experiments/experiment_index.js';
import { inState, stateName } from '../../domain/experiments/transition.js';
import type { HistoryEntry } from '../../domain/history.js';
import type { Experiment } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { printable } from '../../domain/text.js';
import { experimentBefore } from '../../store/history/history.js';

/** The parts of the rollback of a revision that a rollback of experiments needs. */
interface Parts {
  readonly state: State;
  readonly draft: Draft;
  readonly conflict: (experiment: Experiment, description: string) => void;
  /** Whether an agent exists after the rollback. */
  readonly hasAgent: (id: number) => boolean;
  /** Whether a config exists after the rollback. */
  readonly hasConfig: (id: number) => boolean;
}

/** Adds the inverse of the change of an experiment, or its conflicts, to the rollback of a revision. */
export function undoExperiment(parts: Parts, entry: HistoryEntry): void {
  const current = parts.state.experiments.withId(entry.entity_id);
  const before = experimentBefore(entry);
  const shown = current ?? before;
  const problem = undo(parts, entry, current, before);
  if (problem && shown) parts.conflict(shown, problem);
}

/** @returns the reason why the rollback is not possible; `isUsable` adds further conflicts. */
function undo(
  parts: Parts,
  { action, revision }: HistoryEntry,
  current: Experiment | undefined,
  before: Experiment | undefined,
): string | undefined {
  if (action === 'delete') return current || !before ? undefined : restore(parts, before);
  if (!current) return before && 'was deleted since';
  if (current.revision !== revision) return `was changed again at revision ${current.revision}`;
  if (before) return restoreContent(parts, before, current);
  if (hasStarted(current)) return `is ${stateName(current.state)} and cannot be deleted`;
  parts.draft.remove('experiment', current);
  return undefined;
}

/** The name of an experiment in a conflict. */
export const conflictName = ({ id, name }: Experiment): string =>
  `experiment ${id} ${JSON.stringify(printable(name, 60))}`;

function restore(parts: Parts, before: Experiment): string | undefined {
  const { state, draft, hasAgent } = parts;
  if (!hasAgent(before.agent_id)) return `belongs to agent ${before.agent_id}, which was deleted since`;
  if (state.experiments.named(before.agent_id, before.name))
    return 'has a name that another experiment of the agent uses now';
  const isRunning = before.state === 'EXPERIMENT_STATE_RUNNING';
  const row = { ...before, running_since: isRunning ? draft.now : null, allocation_revision: draft.revision };
  if (isUsable(parts, row)) draft.restore('experiment', row);
  return undefined;
}

/** Writes the earlier content. The experiment enters the earlier state again; the counted running time stays. */
function restoreContent(parts: Parts, before: Experiment, current: Experiment): string | undefined {
  const { draft } = parts;
  if (hasStarted(current) && !hasStarted(before)) return 'has started and cannot become a draft again';
  const { state_reason: reason, winner } = before;
  const { running_since, ran_ms, ended_at } =
    before.state === current.state ? current : inState(current, before.state, draft, { reason, winner });
  const { allocation_revision } = current;
  const row: Experiment = { ...before, running_since, ran_ms, ended_at, allocation_revision };
  const [fixed] = fixedFields(current, row);
  if (fixed) return `${fixed.field} ${fixed.description}`;
  if (isUsable(parts, row)) draft.update('experiment', current, withBuckets(draft, current, row));
  return undefined;
}

/** Whether an experiment may be running or paused again. Adds the conflicts otherwise. */
function isUsable({ state, conflict, hasConfig }: Parts, row: Experiment): boolean {
  if (!isActive(row)) return true;
  const problems: string[] = [];
  const other = state.experiments.activeOf(row.agent_id).find(({ id }) => id !== row.id);
  if (other) problems.push(`cannot be ${stateName(row.state)}: ${conflictName(other)} is ${stateName(other.state)}`);
  const missing = row.variants.find(({ config_id }) => config_id !== null && !hasConfig(config_id));
  if (missing) problems.push(`uses config ${missing.config_id}, which was deleted since`);
  const report = (field: string, description: string | undefined) => {
    if (description && !field.endsWith('.config_id')) problems.push(`${field}: ${description}`);
  };
  checkVariants(state, row, report, { allowUnknownModel: true });
  for (const problem of problems) conflict(row, problem);
  return problems.length === 0;
}

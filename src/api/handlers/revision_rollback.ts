import { checkAgent } from '../../domain/agent.js';
import type { Draft } from '../../domain/draft.js';
import type { HistoryEntry } from '../../domain/history.js';
import { agentPatchBack, keyFits, modelsPass, patchBack } from '../../domain/rollback.js';
import type { Agent, Config, Experiment } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { printable } from '../../domain/text.js';
import type { Resource, Violation } from '../../errors.js';
import { agentBefore, configBefore, type PastRevision } from '../../store/history/history.js';
import { experimentUsing } from './experiment_requests.js';
import { conflictName, undoExperiment } from './experiment_rollback.js';
import { deleted } from './rollback.js';
import { type ConfigRequest, draftProposal, keyRefusal, proposeUpdate } from './write_config.js';

/** A conflict that prevents the rollback of a revision. */
export interface Conflict extends Violation {
  readonly resource: Resource | undefined;
}

interface Options {
  /** Whether a config whose API key cannot be restored is restored without a key. */
  readonly withoutKeys: boolean;
}

/**
 * Fills a draft with the inverse of a revision and collects all conflicts. No change is needed for a
 * row that the revision created and that is already deleted, or that it deleted and that exists again.
 */
export class RevisionRollback {
  readonly conflicts: Conflict[] = [];
  private readonly created = new Set<string>();
  private readonly removedAgents = new Set<number>();
  private readonly restoredAgents = new Set<number>();

  constructor(
    private readonly state: State,
    private readonly draft: Draft,
    private readonly past: PastRevision,
    private readonly options: Options,
  ) {
    for (const { entity, entity_id, action } of past.entries)
      if (action === 'create') this.created.add(`${entity} ${entity_id}`);
  }

  /** Configs are deleted before their agents, and restored after them; experiments name both. */
  run(): void {
    const entriesOf = (entity: HistoryEntry['entity']) => this.past.entries.filter((entry) => entry.entity === entity);
    for (const entry of entriesOf('config')) if (entry.action === 'create') this.deleteConfig(entry);
    for (const entry of entriesOf('agent')) this.undoAgent(entry);
    for (const entry of entriesOf('config')) if (entry.action !== 'create') this.undoConfig(entry);
    for (const entry of entriesOf('experiment')) undoExperiment(this.experimentParts, entry);
  }

  private get experimentParts() {
    const { state, draft } = this;
    const isKept = (entity: 'agent' | 'config', exists: boolean, id: number) => {
      const change = draft.changes.find((one) => one.entity === entity && one.id === id);
      return change ? change.after !== undefined : exists;
    };
    return {
      state,
      draft,
      conflict: (experiment: Experiment, description: string) =>
        this.conflict({ type: 'experiment', name: String(experiment.id) }, conflictName(experiment), description),
      hasAgent: (id: number) => isKept('agent', state.agents.has(id), id),
      hasConfig: (id: number) => isKept('config', state.configs.has(id), id),
    };
  }

  private conflict(resource: Resource, field: string, description: string): void {
    this.conflicts.push({ field, description, resource });
  }

  private configConflict(config: Config, description: string): void {
    const agent = this.state.agents.get(config.agent_id)?.name;
    const owner = agent === undefined ? '' : ` of ${JSON.stringify(printable(agent, 60))}`;
    this.conflict({ type: 'config', name: String(config.id) }, `config ${config.id}${owner}`, description);
  }

  private agentConflict({ id, name }: Agent, description: string): void {
    const shown = printable(name, 60);
    this.conflict({ type: 'agent', name: shown }, `agent ${id} ${JSON.stringify(shown)}`, description);
  }

  /** Whether a row is unchanged since the revision; adds a conflict if not. */
  private isUnchanged(
    row: Agent | Config,
    conflict: (description: string) => void,
    { revision }: HistoryEntry,
  ): boolean {
    if (row.revision === revision) return true;
    conflict(`was changed again at revision ${row.revision}`);
    return false;
  }

  private deleteConfig(entry: HistoryEntry): void {
    const config = this.state.configs.get(entry.entity_id);
    if (!config || !this.isUnchanged(config, (text) => this.configConflict(config, text), entry)) return;
    const experiment = experimentUsing(this.state, config);
    if (experiment) this.configConflict(config, `is used by ${conflictName(experiment)}`);
    else this.draft.remove('config', config);
  }

  private undoAgent(entry: HistoryEntry): void {
    const current = this.state.agents.get(entry.entity_id);
    const before = agentBefore(entry);
    if (!before) {
      if (current) this.deleteAgent(current, entry);
    } else if (entry.action === 'delete') {
      if (!current) this.putAgent(before, undefined);
    } else if (!current) this.agentConflict(before, 'was deleted since');
    else if (this.isUnchanged(current, (text) => this.agentConflict(current, text), entry))
      this.putAgent(before, current);
  }

  private deleteAgent(agent: Agent, entry: HistoryEntry): void {
    if (!this.isUnchanged(agent, (text) => this.agentConflict(agent, text), entry)) return;
    const newConfigs = this.state.configsOf(agent.id).filter(({ id }) => !this.created.has(`config ${id}`));
    if (agent.is_reserved) this.agentConflict(agent, 'is reserved and cannot be deleted');
    else if (newConfigs.length > 0)
      this.agentConflict(agent, `has ${newConfigs.length} configs that were created since`);
    else if (this.state.experiments.ofAgent(agent.id).length > 0)
      this.agentConflict(agent, 'has experiments that were created since');
    else {
      this.removedAgents.add(agent.id);
      this.draft.remove('agent', agent);
    }
  }

  private putAgent(before: Agent, current: Agent | undefined): void {
    const row = { ...before, chain_revision: current?.chain_revision ?? before.chain_revision };
    const sameName = this.state.agentNamed(row.name);
    const problems = checkAgent(this.state, row, agentPatchBack(before, current));
    if (sameName && sameName.id !== row.id) this.agentConflict(row, 'has a name that another agent has now');
    for (const { field, description } of problems) this.agentConflict(row, `${field}: ${description}`);
    if (current) this.draft.update('agent', current, row);
    else {
      this.restoredAgents.add(row.id);
      this.draft.restore('agent', row);
    }
  }

  private undoConfig(entry: HistoryEntry): void {
    const current = this.state.configs.get(entry.entity_id);
    const before = configBefore(entry) as Config;
    if (entry.action === 'delete') {
      if (!current) this.putConfig(before, undefined);
    } else if (!current) this.configConflict(before, 'was deleted since');
    else if (entry.before?.['revision'] === entry.after?.['revision'])
      this.configConflict(current, 'had its API key re-encrypted, which cannot be rolled back');
    else if (this.isUnchanged(current, (text) => this.configConflict(current, text), entry))
      this.putConfig(before, current);
  }

  private putConfig(before: Config, stored: Config | undefined): void {
    const problem = this.missingAgent(before) ?? this.missingKey(before, stored);
    if (problem) {
      this.configConflict(before, problem);
      return;
    }
    const { state } = this;
    const earlier = { state: this.past.state, config: before };
    const current = stored && { state, config: stored };
    const clear_api_key = stored?.key_id !== null && !this.keepsKey(before, stored);
    const change: ConfigRequest = { clear_api_key, allow_unknown_model: modelsPass(earlier, state) };
    const proposal = proposeUpdate(state, stored ?? deleted(before), patchBack(earlier, current), change);
    const refusal = keyRefusal(state, { ...proposal, before: stored }, change);
    for (const { field, description } of proposal.violations) this.configConflict(before, `${field}: ${description}`);
    if (refusal) this.configConflict(before, refusal.message);
    if (proposal.violations.length === 0 && !refusal)
      draftProposal(state, this.draft, { ...proposal, before: stored }, change);
  }

  private missingAgent({ agent_id: id }: Config): string | undefined {
    const exists = this.state.agents.has(id) && !this.removedAgents.has(id);
    return exists || this.restoredAgents.has(id) ? undefined : `belongs to agent ${id}, which was deleted since`;
  }

  /** The history has no keys: the current key stays if it matches, and a key that the revision added is removed. */
  private keepsKey(before: Config, stored: Config | undefined): boolean {
    const current = stored && { state: this.state, config: stored };
    return before.key_id !== null && keyFits({ state: this.past.state, config: before }, current);
  }

  private missingKey(before: Config, stored: Config | undefined): string | undefined {
    if (before.key_id === null || this.options.withoutKeys || this.keepsKey(before, stored)) return undefined;
    return 'had an API key, which cannot be restored; set without_keys';
  }
}

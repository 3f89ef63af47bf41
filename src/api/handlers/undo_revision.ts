import { checkAgent } from '../../domain/agent.js';
import type { Draft } from '../../domain/draft.js';
import type { HistoryEntry } from '../../domain/history.js';
import { agentPatchBack, keyFits, modelsPass, patchBack } from '../../domain/rollback.js';
import type { Agent, Config } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { printable } from '../../domain/text.js';
import type { Resource, Violation } from '../../errors.js';
import { agentBefore, configBefore, type PastRevision } from '../../store/history/history.js';
import { deleted } from './rollback.js';
import { type ConfigRequest, draftProposal, keyRefusal, proposeUpdate } from './write_config.js';

/** What stands in the way of undoing a revision. */
export interface Conflict extends Violation {
  readonly resource: Resource | undefined;
}

interface Options {
  /** Whether a config whose own key cannot be restored comes back without one. */
  readonly withoutKeys: boolean;
}

/**
 * Fills a draft with the opposite of what a revision did, and collects everything that is in the way. What the revision
 * created and is gone, or deleted and is there again, is undone already.
 */
export class UndoRevision {
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

  /** Configs are deleted before their agents, and come back after them. */
  run(): void {
    const of = (entity: HistoryEntry['entity']) => this.past.entries.filter((entry) => entry.entity === entity);
    for (const entry of of('config')) if (entry.action === 'create') this.deleteConfig(entry);
    for (const entry of of('agent')) this.undoAgent(entry);
    for (const entry of of('config')) if (entry.action !== 'create') this.undoConfig(entry);
  }

  private conflict(resource: Resource, field: string, description: string): void {
    this.conflicts.push({ field, description, resource });
  }

  private aboutConfig(config: Config, description: string): void {
    const agent = this.state.agents.get(config.agent_id)?.name;
    const owner = agent === undefined ? '' : ` of ${JSON.stringify(printable(agent, 60))}`;
    this.conflict({ type: 'config', name: String(config.id) }, `config ${config.id}${owner}`, description);
  }

  private aboutAgent({ id, name }: Agent, description: string): void {
    const shown = printable(name, 60);
    this.conflict({ type: 'agent', name: shown }, `agent ${id} ${JSON.stringify(shown)}`, description);
  }

  /** Whether a row is as the revision left it; a conflict where it is not. */
  private isAsLeft(row: Agent | Config, about: (description: string) => void, { revision }: HistoryEntry): boolean {
    if (row.revision === revision) return true;
    about(`was changed again at revision ${row.revision}`);
    return false;
  }

  private deleteConfig(entry: HistoryEntry): void {
    const config = this.state.configs.get(entry.entity_id);
    if (config && this.isAsLeft(config, (what) => this.aboutConfig(config, what), entry))
      this.draft.remove('config', config);
  }

  private undoAgent(entry: HistoryEntry): void {
    const current = this.state.agents.get(entry.entity_id);
    const before = agentBefore(entry);
    if (!before) {
      if (current) this.deleteAgent(current, entry);
    } else if (entry.action === 'delete') {
      if (!current) this.putAgent(before, undefined);
    } else if (!current) this.aboutAgent(before, 'was deleted since');
    else if (this.isAsLeft(current, (what) => this.aboutAgent(current, what), entry)) this.putAgent(before, current);
  }

  private deleteAgent(agent: Agent, entry: HistoryEntry): void {
    if (!this.isAsLeft(agent, (what) => this.aboutAgent(agent, what), entry)) return;
    const later = this.state.configsOf(agent.id).filter(({ id }) => !this.created.has(`config ${id}`));
    if (agent.is_reserved) this.aboutAgent(agent, 'is reserved and cannot be deleted');
    else if (later.length > 0) this.aboutAgent(agent, `has ${later.length} configs that were created since`);
    else {
      this.removedAgents.add(agent.id);
      this.draft.remove('agent', agent);
    }
  }

  private putAgent(before: Agent, current: Agent | undefined): void {
    const row = { ...before, chain_revision: current?.chain_revision ?? before.chain_revision };
    const bearer = this.state.agentNamed(row.name);
    const problems = checkAgent(this.state, row, agentPatchBack(before, current));
    if (bearer && bearer.id !== row.id) this.aboutAgent(row, 'has a name that another agent has now');
    for (const { field, description } of problems) this.aboutAgent(row, `${field}: ${description}`);
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
    } else if (!current) this.aboutConfig(before, 'was deleted since');
    else if (entry.before?.['revision'] === entry.after?.['revision'])
      this.aboutConfig(current, 'had its key encrypted anew, which is not undone');
    else if (this.isAsLeft(current, (what) => this.aboutConfig(current, what), entry)) this.putConfig(before, current);
  }

  private putConfig(before: Config, stored: Config | undefined): void {
    const problem = this.missingAgent(before) ?? this.lostKey(before, stored);
    if (problem) {
      this.aboutConfig(before, problem);
      return;
    }
    const { state } = this;
    const earlier = { state: this.past.state, config: before };
    const current = stored && { state, config: stored };
    const clear_api_key = stored?.key_id !== null && !this.keepsKey(before, stored);
    const change: ConfigRequest = { clear_api_key, allow_unknown_model: modelsPass(earlier, state) };
    const proposal = proposeUpdate(state, stored ?? deleted(before), patchBack(earlier, current), change);
    const refusal = keyRefusal(state, { ...proposal, before: stored }, change);
    for (const { field, description } of proposal.violations) this.aboutConfig(before, `${field}: ${description}`);
    if (refusal) this.aboutConfig(before, refusal.message);
    if (proposal.violations.length === 0 && !refusal)
      draftProposal(state, this.draft, { ...proposal, before: stored }, change);
  }

  private missingAgent({ agent_id: id }: Config): string | undefined {
    const stays = this.state.agents.has(id) && !this.removedAgents.has(id);
    return stays || this.restoredAgents.has(id) ? undefined : `belongs to agent ${id}, which was deleted since`;
  }

  /** The history holds no keys: one that is stored now stays where it fits. One that the revision added is removed. */
  private keepsKey(before: Config, stored: Config | undefined): boolean {
    const current = stored && { state: this.state, config: stored };
    return before.key_id !== null && keyFits({ state: this.past.state, config: before }, current);
  }

  private lostKey(before: Config, stored: Config | undefined): string | undefined {
    if (before.key_id === null || this.options.withoutKeys || this.keepsKey(before, stored)) return undefined;
    return 'had an API key of its own, which cannot be restored; set without_keys';
  }
}

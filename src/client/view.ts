import type { Agent as AgentMessage } from '../../gen/ts/agentllm/v1/agent.js';
import {
  type CatalogueItem,
  type ChangeCause,
  ConfigChanges,
  WatchedAgent,
} from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { ActiveExperiment } from '../domain/experiments/active_experiment.js';
import type { Agent, Config } from '../domain/rows.js';
import { Catalogue } from './catalogue.js';
import type { Change } from './change.js';
import type { Resolution } from './resolution_types.js';
import { agentRow, configRow, experimentSettings, type Ids } from './rows.js';

/**
 * The cached resolutions of an agent without assumptions, with the catalogue and the version of budget states from
 * which they were computed.
 */
export interface HeldResolutions {
  readonly catalogue: Catalogue;
  readonly budgetVersion: number;
  /** By the position of the variant in the experiment; without an experiment, only the first element is used. */
  readonly byPosition: (Resolution | undefined)[];
}

/** An agent as the watch delivered it; the next delivery replaces it. */
export class HeldAgent {
  private resolutions: HeldResolutions | undefined;
  private active: { readonly experiment: ActiveExperiment | undefined } | undefined;

  constructor(
    readonly message: WatchedAgent,
    /** Store revision of the last change of the agent or its configurations. */
    readonly revision: bigint,
  ) {}

  /** The experiment that is running or paused; the same object until the next delivery. */
  get experiment(): ActiveExperiment | undefined {
    this.active ??= { experiment: ActiveExperiment.among(this.message.experiments.map(experimentSettings)) };
    return this.active.experiment;
  }

  /** The resolutions that are known for a catalogue and the states of budgets. */
  resolved(catalogue: Catalogue, budgetVersion: number): HeldResolutions {
    const { resolutions } = this;
    if (resolutions?.catalogue === catalogue && resolutions.budgetVersion === budgetVersion) return resolutions;
    this.resolutions = { catalogue, budgetVersion, byPosition: [] };
    return this.resolutions;
  }

  /** The rows to resolve from. Call it only if the message has an agent. */
  rows(ids: Ids): { readonly agent: Agent; readonly configs: readonly Config[] } {
    const { agent, configs } = this.message;
    return { agent: agentRow(agent as AgentMessage), configs: configs.map((config) => configRow(config, ids)) };
  }
}

/** The content of one revision, or of a snapshot. */
export interface Batch {
  readonly revision: bigint;
  /** The resume token for a later stream; empty: a later stream starts with a snapshot. */
  readonly token: string;
  readonly agents: readonly WatchedAgent[];
  readonly catalogue: readonly CatalogueItem[];
  readonly cause: ChangeCause | undefined;
  /** Whether the batch replaces the whole state. */
  readonly snapshot: boolean;
}

/**
 * The held state at one revision. A view that is pinned by a run never changes. A view without pins passes its map of
 * agents on to the next view, so that the cost of a change does not depend on the number of agents.
 */
export class View {
  /** The number of runs that are pinned to this view. */
  pins = 0;

  private constructor(
    readonly revision: bigint,
    readonly token: string,
    private readonly agents: Map<string, HeldAgent>,
    readonly catalogue: Catalogue,
    /** Whether an earlier, pinned view uses the same map. */
    private readonly shared = false,
  ) {}

  static empty(): View {
    return new View(0n, '', new Map(), Catalogue.empty());
  }

  agent(name: string): HeldAgent | undefined {
    return this.agents.get(name);
  }

  get agentNames(): Iterable<string> {
    return this.agents.keys();
  }

  /** The same state with another revision and resume token. */
  at(revision: bigint, token: string): View {
    return new View(revision, token, this.agents, this.catalogue, this.pins > 0 || this.shared);
  }

  /**
   * The same state with a new catalogue object, which invalidates cached resolutions. Used when the finding about the
   * shutdown date of a model changes.
   */
  withNewCatalogue(): View {
    const catalogue = this.catalogue.with([], this.catalogue.revision);
    return new View(this.revision, this.token, this.agents, catalogue, this.pins > 0 || this.shared);
  }

  /** The view after a batch, and the change between the two views. */
  apply(batch: Batch): { readonly view: View; readonly change: Change } {
    return batch.snapshot ? this.replace(batch) : this.alter(batch);
  }

  private alter({ revision, token, agents, catalogue, cause }: Batch) {
    const map = this.mapForNext();
    for (const agent of agents) map.set(agent.name, new HeldAgent(withoutUrgent(agent), revision));
    const next = catalogue.length > 0 ? this.catalogue.with(catalogue, revision) : this.catalogue;
    const names = [...new Set(agents.map(({ name }) => name))];
    const urgent = [...agents, ...catalogue].some((one) => one.urgent);
    return {
      view: new View(revision, token, map, next),
      change: { revision, agents: names, catalogue: catalogue.length > 0, urgent, cause, snapshot: false, merged: 1 },
    };
  }

  /** Replaces everything by a snapshot. Unchanged agents keep their object, and with it their cached resolution. */
  private replace({ revision, token, agents, catalogue }: Batch) {
    const map = new Map<string, HeldAgent>();
    const names: string[] = [];
    for (const agent of agents) {
      const before = this.agents.get(agent.name);
      const same = before !== undefined && equal(before.message, withoutUrgent(agent));
      if (!same) names.push(agent.name);
      map.set(agent.name, same ? before : new HeldAgent(withoutUrgent(agent), revision));
    }
    for (const name of this.agents.keys()) if (!map.has(name)) names.push(name);
    const whole = this.catalogue.with(catalogue, revision, true);
    const sameCatalogue = equalItems(this.catalogue.all, whole.all);
    const next = sameCatalogue ? this.catalogue : whole;
    return {
      view: new View(revision, token, map, next),
      change: {
        revision,
        agents: names,
        catalogue: !sameCatalogue,
        // A snapshot does not report whether a change in the gap was urgent.
        urgent: false,
        cause: undefined,
        snapshot: true,
        merged: 1,
      },
    };
  }

  /** The whole state as one message, for the cache file. */
  toMessage(): ConfigChanges {
    return { agents: [...this.agents.values()].map(({ message }) => message), catalogue: [...this.catalogue.all] };
  }

  private mapForNext(): Map<string, HeldAgent> {
    return this.pins > 0 || this.shared ? new Map(this.agents) : this.agents;
  }
}

/** Removes the urgent mark, which describes the change and not the agent. */
const withoutUrgent = (agent: WatchedAgent): WatchedAgent => (agent.urgent ? { ...agent, urgent: false } : agent);

const equal = (a: WatchedAgent, b: WatchedAgent): boolean =>
  Buffer.compare(WatchedAgent.encode(a).finish(), WatchedAgent.encode(b).finish()) === 0;

/** Whether two catalogues have the same content. The service sends the items in any order. */
function equalItems(a: readonly CatalogueItem[], b: readonly CatalogueItem[]): boolean {
  const bytes = (items: readonly CatalogueItem[]) =>
    items
      .map((item) => Buffer.from(ConfigChanges.encode({ agents: [], catalogue: [item] }).finish()).toString('latin1'))
      .sort();
  if (a.length !== b.length) return false;
  const others = bytes(b);
  return bytes(a).every((one, at) => one === others[at]);
}

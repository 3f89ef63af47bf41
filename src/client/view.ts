import type { Agent as AgentMessage } from '../../gen/ts/agentllm/v1/agent.js';
import {
  type CatalogueItem,
  type ChangeCause,
  ConfigChanges,
  WatchedAgent,
} from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import type { Agent, Config } from '../domain/rows.js';
import { Catalogue } from './catalogue.js';
import type { Change } from './change.js';
import type { Resolution } from './resolution_types.js';
import { agentRow, configRow, type Ids } from './rows.js';

/** An agent as it was received, until it is received again. */
export class HeldAgent {
  /** What was resolved from it last, and with which catalogue. */
  resolved: { readonly catalogue: Catalogue; readonly resolution: Resolution } | undefined;

  constructor(
    readonly message: WatchedAgent,
    /** Store revision at which it became this. */
    readonly revision: bigint,
  ) {}

  /** The rows to resolve from, when the store has an agent of this name. */
  rows(ids: Ids): { readonly agent: Agent; readonly configs: readonly Config[] } {
    const { agent, configs } = this.message;
    return { agent: agentRow(agent as AgentMessage), configs: configs.map((config) => configRow(config, ids)) };
  }
}

/** All that comes with one revision, or with a snapshot. */
export interface Batch {
  readonly revision: bigint;
  /** Where a later stream can go on; empty: only from a snapshot. */
  readonly token: string;
  readonly agents: readonly WatchedAgent[];
  readonly catalogue: readonly CatalogueItem[];
  readonly cause: ChangeCause | undefined;
  /** It replaces everything. */
  readonly snapshot: boolean;
}

/**
 * What is held at one revision. A view never changes while a run holds it: one that nobody holds hands its map of agents
 * on to the next, so that a change costs what it touches, however many agents there are.
 */
export class View {
  /** How many runs go on with it whatever comes. */
  pins = 0;

  private constructor(
    readonly revision: bigint,
    readonly token: string,
    private readonly agents: Map<string, HeldAgent>,
    readonly catalogue: Catalogue,
    /** Whether a view before this one, which a run holds, has the same map. */
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

  /** The same with another place to go on from. */
  at(revision: bigint, token: string): View {
    return new View(revision, token, this.agents, this.catalogue, this.pins > 0 || this.shared);
  }

  /** The same, to be resolved anew: time alone has changed what is to be said of it. */
  renewed(): View {
    const catalogue = this.catalogue.with([], this.catalogue.revision);
    return new View(this.revision, this.token, this.agents, catalogue, this.pins > 0 || this.shared);
  }

  /** The view after a batch, and what is different in it. */
  apply(batch: Batch): { readonly view: View; readonly change: Change } {
    return batch.snapshot ? this.replace(batch) : this.alter(batch);
  }

  private alter({ revision, token, agents, catalogue, cause }: Batch) {
    const map = this.mapForNext();
    for (const agent of agents) map.set(agent.name, new HeldAgent(plain(agent), revision));
    const next = catalogue.length > 0 ? this.catalogue.with(catalogue, revision) : this.catalogue;
    const names = [...new Set(agents.map(({ name }) => name))];
    const urgent = [...agents, ...catalogue].some((one) => one.urgent);
    return {
      view: new View(revision, token, map, next),
      change: { revision, agents: names, catalogue: catalogue.length > 0, urgent, cause, snapshot: false, merged: 1 },
    };
  }

  /** A snapshot in the place of everything; what is as it was stays the same object, with what was resolved from it. */
  private replace({ revision, token, agents, catalogue }: Batch) {
    const map = new Map<string, HeldAgent>();
    const names: string[] = [];
    for (const agent of agents) {
      const before = this.agents.get(agent.name);
      const same = before !== undefined && equal(before.message, plain(agent));
      if (!same) names.push(agent.name);
      map.set(agent.name, same ? before : new HeldAgent(plain(agent), revision));
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
        // Whatever was urgent in the gap came with no mark.
        urgent: false,
        cause: undefined,
        snapshot: true,
        merged: 1,
      },
    };
  }

  /** Everything as one message: what the file of the last known good holds. */
  toMessage(): ConfigChanges {
    return { agents: [...this.agents.values()].map(({ message }) => message), catalogue: [...this.catalogue.all] };
  }

  private mapForNext(): Map<string, HeldAgent> {
    return this.pins > 0 || this.shared ? new Map(this.agents) : this.agents;
  }
}

/** Urgency is of the change, not of the agent. */
const plain = (agent: WatchedAgent): WatchedAgent => (agent.urgent ? { ...agent, urgent: false } : agent);

const equal = (a: WatchedAgent, b: WatchedAgent): boolean =>
  Buffer.compare(WatchedAgent.encode(a).finish(), WatchedAgent.encode(b).finish()) === 0;

/** Whether two catalogues have the same in them; the service sends them in any order. */
function equalItems(a: readonly CatalogueItem[], b: readonly CatalogueItem[]): boolean {
  const bytes = (items: readonly CatalogueItem[]) =>
    items
      .map((item) => Buffer.from(ConfigChanges.encode({ agents: [], catalogue: [item] }).finish()).toString('latin1'))
      .sort();
  if (a.length !== b.length) return false;
  const others = bytes(b);
  return bytes(a).every((one, at) => one === others[at]);
}

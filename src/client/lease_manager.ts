import { AgentLeases, type LeaseManagerOptions } from './agent_leases.js';
import { AgentLLMError } from './error.js';
import { LEASE_METHOD, type WantedKey } from './lease.js';
import type { Batch, View } from './view.js';

/** The stored keys of all agents of a client, in its memory alone. */
export class LeaseManager {
  private readonly byAgent = new Map<number, AgentLeases>();
  private closed = false;

  constructor(private readonly parts: LeaseManagerOptions) {}

  /** The stored key of a config, leased when it is not held; rejects when it cannot be had. */
  async keyFor(agent: { id: number; name: string }, wanted: WantedKey, signal?: AbortSignal): Promise<string> {
    if (this.closed) throw AgentLLMError.here('This client was closed', { code: 'CANCELLED', method: LEASE_METHOD });
    const known = this.byAgent.get(agent.id) ?? new AgentLeases(agent.id, agent.name, this.parts);
    this.byAgent.set(agent.id, known);
    known.name = agent.name;
    return known.keyFor(wanted, signal);
  }

  /** Drops at once what a change has taken back. @param view what is held after it. */
  changed({ snapshot, revision, agents, catalogue }: Batch, view: View): void {
    const touched = new Map<number | undefined, boolean>();
    for (const { agent, id = agent?.id, urgent } of agents) touched.set(id, urgent || (touched.get(id) ?? false));
    const urgent = catalogue.filter((one) => one.urgent);
    const credentials = new Set(urgent.map((one) => one.credential?.name ?? one.deleted_credential));
    const providers = new Set(urgent.map((one) => one.provider?.name ?? one.deleted_provider));
    for (const [id, leases] of this.byAgent) {
      if (!snapshot && !touched.has(id) && catalogue.length === 0) continue;
      const taken = touched.get(id) === true && !snapshot;
      leases.changed(view, revision, {
        taken: taken || leases.uses(credentials, providers),
        // Whatever was urgent in a gap came with no mark.
        gap: snapshot,
        doubtful: snapshot || taken || urgent.length > 0,
      });
    }
  }

  /** Drops everything: the numbers of revisions and agents mean something else now. */
  clear(): void {
    for (const leases of this.byAgent.values()) leases.clear();
  }

  close(): void {
    this.closed = true;
    for (const leases of this.byAgent.values()) leases.end();
    this.byAgent.clear();
  }
}

import { AgentLeases, type LeaseManagerOptions } from './agent_leases.js';
import { AgentLLMError } from './error.js';
import { LEASE_METHOD, type RequestedKey } from './lease.js';
import type { Batch, View } from './view.js';

/** The leased keys of all agents of a client, in memory only. */
export class LeaseManager {
  private readonly byAgent = new Map<number, AgentLeases>();
  private closed = false;

  constructor(private readonly parts: LeaseManagerOptions) {}

  /** The stored key of a config. Leases it if it is not held; rejects if it cannot be leased. */
  async keyFor(agent: { id: number; name: string }, requested: RequestedKey, signal?: AbortSignal): Promise<string> {
    if (this.closed) throw AgentLLMError.here('This client was closed', { code: 'CANCELLED', method: LEASE_METHOD });
    const leases = this.byAgent.get(agent.id) ?? new AgentLeases(agent.id, agent.name, this.parts);
    this.byAgent.set(agent.id, leases);
    leases.name = agent.name;
    return leases.keyFor(requested, signal);
  }

  /** Drops the leases that a change revokes. @param view the state after the change. */
  changed({ snapshot, revision, agents, catalogue }: Batch, view: View): void {
    const touched = new Map<number | undefined, boolean>();
    for (const { agent, id = agent?.id, urgent } of agents) touched.set(id, urgent || (touched.get(id) ?? false));
    const urgent = catalogue.filter((one) => one.urgent);
    const credentials = new Set(urgent.map((one) => one.credential?.name ?? one.deleted_credential));
    const providers = new Set(urgent.map((one) => one.provider?.name ?? one.deleted_provider));
    for (const [id, leases] of this.byAgent) {
      if (!snapshot && !touched.has(id) && catalogue.length === 0) continue;
      const revoked = touched.get(id) === true && !snapshot;
      leases.changed(view, revision, {
        revoked: revoked || leases.uses(credentials, providers),
        // A snapshot does not report whether a change in the gap was urgent.
        gap: snapshot,
        affectsRequest: snapshot || revoked || urgent.length > 0,
      });
    }
  }

  /**
   * Drops all leases, because the client is connected to another store, whose revisions and agent ids have another
   * meaning.
   */
  clear(): void {
    for (const leases of this.byAgent.values()) leases.clear();
  }

  close(): void {
    this.closed = true;
    for (const leases of this.byAgent.values()) leases.end();
    this.byAgent.clear();
  }
}

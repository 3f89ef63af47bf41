import { randomUUID } from 'node:crypto';
import type { UsageLoss } from '../../../gen/ts/agentllm/v1/usage.js';

/**
 * The maximum number of agents whose losses are counted separately. Losses of further agents are counted, but not
 * reported to the service.
 */
const MAX_AGENTS = 1000;

/** Counts dropped attempts in memory for the next report to the service. */
export class Losses {
  private readonly byAgent = new Map<string, { attempts: number; first: Date; last: Date }>();

  get size(): number {
    return this.byAgent.size;
  }

  add(agent: string, startedAt: Date): void {
    const existing = this.byAgent.get(agent);
    if (existing) {
      existing.attempts++;
      if (startedAt < existing.first) existing.first = startedAt;
      if (startedAt > existing.last) existing.last = startedAt;
    } else if (this.byAgent.size < MAX_AGENTS)
      this.byAgent.set(agent, { attempts: 1, first: startedAt, last: startedAt });
  }

  /** Removes and returns at most `most` reports. Each report has an id, so the service counts it once. */
  take(most: number): UsageLoss[] {
    const taken = [...this.byAgent].slice(0, most);
    for (const [agent] of taken) this.byAgent.delete(agent);
    return taken.map(([agent, { attempts, first, last }]) => ({
      loss_id: randomUUID(),
      agent,
      attempts: BigInt(attempts),
      first_at: first,
      last_at: last,
    }));
  }
}

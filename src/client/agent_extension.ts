import type { Receipt } from '../../gen/ts/agentllm/v1/receipt.js';
import type { AgentHandle } from './agent.js';

/** An agent that gets further members, and the run that it belongs to. */
export interface ExtendedAgent {
  readonly handle: AgentHandle;
  /** The id of the run; empty outside a run. */
  readonly runId: string;
}

/**
 * Adds members to the agents of a client. It is called once for each client; the function that it returns is called for
 * each agent.
 *
 * @param emit delivers a receipt to the listeners of the client.
 */
export type AgentExtension = (emit: (receipt: Receipt) => void) => (agent: ExtendedAgent) => void;

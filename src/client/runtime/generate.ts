import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import type { AttemptContext, ModelCall } from './model_call.js';
import type { Runtime } from './runtime.js';
import { startChain } from './start_chain.js';

/**
 * Makes a call that returns one complete response. `attempt` makes one attempt with the provider package of an SDK; its
 * result counts only if the transport has seen a complete response.
 *
 * Rejects with a ChainError or a CallAbortedError, which have the receipt; with the AgentLLMError of `resolve()` when the
 * agent cannot be resolved.
 */
export async function generate<T>(
  runtime: Runtime,
  call: ModelCall,
  attempt: (context: AttemptContext) => PromiseLike<T>,
): Promise<{ readonly value: T; readonly receipt: Receipt }> {
  const chain = await startChain(runtime, call, 'generate');
  const committed = await chain.commit(async (current) => {
    const value = await attempt(current.context);
    current.ensureComplete();
    return value;
  });
  return { value: committed.value, receipt: chain.complete(committed.attempt) };
}

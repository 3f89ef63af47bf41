import { Chain } from './chain.js';
import type { ModelCall } from './model_call.js';
import type { Runtime } from './runtime.js';

/** Resolves the agent of a call and starts its chain. The configuration of the call is fixed from here on. */
export async function startChain(
  runtime: Runtime,
  call: ModelCall,
  mode: 'generate' | 'live' | 'whole',
): Promise<Chain> {
  const loading = runtime.telemetry.ready();
  if (loading) await loading;
  const resolution = call.agent.resolve({ overrides: call.overrides });
  return new Chain(runtime, call, mode, runtime.telemetry.start(resolution.hops[0]), resolution);
}

import type { Finding } from '../../../gen/ts/agentllm/v1/finding.js';
import type { Resolution } from '../resolution_types.js';
import { Chain } from './chain.js';
import type { ModelCall } from './model_call.js';
import type { Runtime } from './runtime.js';

/** The hops of a call, each with the parameters that the call sets for it, all of the same revision. */
function resolveCall({ agent, settings, overrides, hopOverrides }: ModelCall): Resolution {
  const { subject } = settings;
  const resolution = agent.resolve({ overrides, subject });
  if (!hopOverrides) return resolution;
  let { findings } = resolution;
  const hops = resolution.hops.map((hop) => {
    const own = hopOverrides(hop);
    if (Object.keys(own).length === 0) return hop;
    const changed = agent.resolve({ overrides: { ...overrides, ...own }, subject });
    const isOfHop = (finding: Finding) => finding.hop === hop.index;
    findings = [...findings.filter((finding) => !isOfHop(finding)), ...changed.findings.filter(isOfHop)];
    return changed.hops.find(({ index }) => index === hop.index) ?? hop;
  });
  return { ...resolution, hops, findings };
}

/** Resolves the agent of a call and starts its chain. The configuration of the call is fixed from here on. */
export async function startChain(
  runtime: Runtime,
  call: ModelCall,
  mode: 'generate' | 'live' | 'whole',
): Promise<Chain> {
  const loading = runtime.telemetry.ready();
  if (loading) await loading;
  const resolution = resolveCall(call);
  return new Chain(runtime, call, mode, runtime.telemetry.start(resolution.hops[0]), resolution);
}

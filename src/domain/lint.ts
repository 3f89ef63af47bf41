import type { Finding, Hop } from '../../gen/ts/agentllm/v1/finding.js';
import type { Violation } from '../errors.js';
import { examine } from './examine.js';
import type { ExaminedHop } from './examined_hop.js';
import { finding, gravestFirst } from './findings.js';
import type { Agent, Config } from './rows.js';
import type { ResolveView } from './view.js';

/** A chain with what would be sent for each hop, and everything there is to say about it. */
export interface Lint {
  readonly hops: readonly Hop[];
  readonly findings: readonly Finding[];
}

/**
 * Lints the chain that an agent has with these configs. Duplicates and what the policy cuts have no place in it; a hop
 * whose provider cannot be used has, because that is what has to be mended.
 */
export function lintChain(view: ResolveView, agent: Agent, configs: readonly Config[], now: Date): Lint {
  const { hops, findings } = examine(view, agent, configs, now);
  const linted = hops.filter(({ planned }) => planned.dropped === undefined);
  const places = new Map(linted.map(({ planned }, place) => [planned.index, place]));
  const placed = (one: Finding) => (one.hop === undefined ? one : { ...one, hop: places.get(one.hop) });
  return { hops: linted.map(hopMessage), findings: gravestFirst(findings.map(placed)) };
}

/** What the lint says about one stored config: what a write of it answers. */
export function lintConfig(view: ResolveView, agent: Agent, config: Config, now: Date): readonly Finding[] {
  return lintChain(view, { ...agent, is_active: true }, [{ ...config, enabled: true }], now).findings;
}

/** A refused field of a proposal as a finding. */
export const refusedField = (violation: Violation): Finding =>
  finding({
    severity: 'SEVERITY_ERROR',
    reason: 'FINDING_REASON_INVALID_FIELD',
    field: violation.field,
    message: violation.description,
  });

const hopMessage = ({ planned, sent }: ExaminedHop, index: number): Hop => ({
  index,
  source: planned.source,
  config_id: planned.config?.id || undefined,
  provider: planned.provider,
  model_name: planned.model_name,
  parameters: sent.map((p) => ({ name: p.name, wire_name: p.wire_name, value_json: JSON.stringify(p.value) })),
});

import type { Finding, Hop } from '../../gen/ts/agentllm/v1/finding.js';
import type { Violation } from '../errors.js';
import type { AnalyzedHop } from './analyzed_hop.js';
import { type AnalysisOptions, analyzeChain } from './chain_analysis.js';
import { bySeverity, finding } from './findings.js';
import type { Agent, Config } from './rows.js';
import type { ResolveView } from './view.js';

/** A chain with the parameters that each hop would send, and all findings. */
export interface Lint {
  readonly hops: readonly Hop[];
  readonly findings: readonly Finding[];
}

/**
 * Lints the chain of an agent with these configs. The result omits duplicates and hops that the substitution policy
 * drops, but includes hops whose provider cannot be used, because their findings need attention.
 */
export function lintChain(
  view: ResolveView,
  agent: Agent,
  configs: readonly Config[],
  now: Date,
  options?: AnalysisOptions,
): Lint {
  const { hops, findings } = analyzeChain(view, agent, configs, now, options);
  const linted = hops.filter(({ planned }) => planned.dropped === undefined);
  const indexes = new Map(linted.map(({ planned }, index) => [planned.index, index]));
  const reindexed = (finding: Finding) =>
    finding.hop === undefined ? finding : { ...finding, hop: indexes.get(finding.hop) };
  return { hops: linted.map(hopMessage), findings: bySeverity(findings.map(reindexed)) };
}

/**
 * The findings about one stored config, which a write of it returns. They name no commands: those name the id of the
 * config, which a dry run of the write does not know.
 */
export function lintConfig(view: ResolveView, agent: Agent, config: Config, now: Date): readonly Finding[] {
  const active = { ...agent, is_active: true };
  return lintChain(view, active, [{ ...config, enabled: true }], now, { namesCommands: false }).findings;
}

/** A field violation of a proposed config as a finding. */
export const refusedField = (violation: Violation): Finding =>
  finding({
    severity: 'SEVERITY_ERROR',
    reason: 'FINDING_REASON_INVALID_FIELD',
    field: violation.field,
    message: violation.description,
  });

const hopMessage = ({ planned, sent }: AnalyzedHop, index: number): Hop => ({
  index,
  source: planned.source,
  config_id: planned.config?.id || undefined,
  provider: planned.provider,
  model_name: planned.model_name,
  parameters: sent.map((p) => ({ name: p.name, wire_name: p.wire_name, value_json: JSON.stringify(p.value) })),
});

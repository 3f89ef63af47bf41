import type { ResolvedHop as HopMessage, ResolvedConfig } from '../../../gen/ts/agentllm/v1/resolution.js';
import type { Resolution, ResolvedHop, ResolvedParameter } from '../../domain/resolve.js';
import type { Agent } from '../../domain/rows.js';
import { priceMessage } from './entities.js';

/** The subject of a resolution, and its bucket. */
export interface ResolvedSubject {
  readonly subject: string;
  readonly bucket: number;
}

/**
 * Converts a resolution to a message: values become JSON, revisions have 64 bits.
 * @param subject the subject that an experiment assigns; undefined: none.
 */
export const resolvedMessage = (
  agent: Agent,
  { hops, skipped, findings, exhausted_budgets, experiment }: Resolution,
  subject?: ResolvedSubject,
): ResolvedConfig => ({
  agent_id: agent.id,
  agent_name: agent.name,
  hops: hops.map(hopMessage),
  skipped: [...skipped],
  findings: [...findings],
  substitution_policy: agent.substitution_policy,
  exhausted_budgets: [...exhausted_budgets],
  experiment: experiment && { ...experiment, ...(experiment.counted && subject ? subject : NO_SUBJECT) },
});

const NO_SUBJECT = { subject: '', bucket: undefined };

const hopMessage = ({ key, price, parameters, provenance, ...hop }: ResolvedHop): HopMessage => ({
  ...hop,
  parameters: parameters.map(parameterMessage),
  key_source: key.source,
  key_name: key.name || key.variables.join(','),
  api_key_state: key.state,
  price: price && { price: priceMessage(price.price), source: price.source },
  provenance: provenance.map((one) => ({ ...one, revision: BigInt(one.revision) })),
});

const parameterMessage = ({ name, wire_name, value, configured }: ResolvedParameter) => ({
  name,
  wire_name,
  value_json: JSON.stringify(value),
  configured_json: configured === undefined ? '' : JSON.stringify(configured),
});

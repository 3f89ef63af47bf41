import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import type { UsageRecord } from '../../../gen/ts/agentllm/v1/usage.js';
import { maxElements } from '../../max_elements.js';

const MAX_STRIPPED = maxElements['agentllm.v1.Attempt.stripped_parameters'];

/** The attempts of a receipt as they are reported. */
export const recordsOf = (receipt: Receipt): UsageRecord[] => {
  const { agent_id, agent, receipt_id, revision, experiment, variant, subject, run_id } = receipt;
  const call = { agent_id, agent, receipt_id, revision, experiment, variant, subject, run_id };
  return receipt.attempts.map((attempt) => ({
    ...call,
    attempt: { ...attempt, stripped_parameters: attempt.stripped_parameters.slice(0, MAX_STRIPPED) },
  }));
};

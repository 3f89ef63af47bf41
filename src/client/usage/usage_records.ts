import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import type { UsageCall, UsageRecord } from '../../../gen/ts/agentllm/v1/usage.js';
import { maxElements } from '../../max_elements.js';

const MAX_STRIPPED = maxElements['agentllm.v1.Attempt.stripped_parameters'];

/** Converts a receipt to the records of its attempts. */
export const recordsOf = (receipt: Receipt): UsageRecord[] => {
  const { agent_id, agent, receipt_id, revision, experiment, variant, subject, run_id } = receipt;
  const call = { agent_id, agent, receipt_id, revision, experiment, variant, subject, run_id };
  const last = receipt.attempts.length - 1;
  return receipt.attempts.map((attempt, at) => ({
    ...call,
    call: experiment === '' ? undefined : usageCall(receipt, at === last),
    attempt: { ...attempt, stripped_parameters: attempt.stripped_parameters.slice(0, MAX_STRIPPED) },
  }));
};

/** The call of an attempt, which is needed only for experiments. */
const usageCall = ({ outcome, duration_ms, hop_index }: Receipt, last_attempt: boolean): UsageCall => ({
  outcome,
  duration_ms,
  hop_index,
  last_attempt,
});

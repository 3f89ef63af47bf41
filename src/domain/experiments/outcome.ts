import type { Outcome } from '../../../gen/ts/agentllm/v1/experiment.js';
import { limits } from '../../limits.js';
import { nameProblem, textProblem, UUID } from '../text.js';

/** The reason why an outcome is invalid, as a part of a sentence; undefined if it is valid. */
export function outcomeProblem(outcome: Outcome): string | undefined {
  const problems: string[] = [];
  const report = (field: string, problem: string | undefined) => {
    if (problem) problems.push(`${field} ${problem}`);
  };
  report('outcome_id', UUID.test(outcome.outcome_id) ? undefined : 'must be a UUID');
  report('agent', outcome.agent === '' ? 'is required' : textProblem(outcome.agent, limits.agentName));
  report('experiment', textProblem(outcome.experiment, limits.experimentName));
  report('subject', textProblem(outcome.subject, limits.subject));
  report('run_id', textProblem(outcome.run_id, limits.runId));
  if (outcome.subject === '' && outcome.run_id === '') report('subject', 'is required without run_id');
  report('name', nameProblem(outcome.name, limits.outcomeName));
  report('value', valueProblem(outcome));
  const year = outcome.observed_at?.getUTCFullYear() ?? 1970;
  report('observed_at', year >= 1970 && year <= 9999 ? undefined : 'must be a time between the years 1970 and 9999');
  return problems.length > 0 ? problems.join('; ').slice(0, 2 * limits.providerMessage) : undefined;
}

function valueProblem({ number, boolean }: Outcome): string | undefined {
  if (number === undefined) return boolean === undefined ? 'is required: set number or boolean' : undefined;
  const { min, max } = limits.outcomeValue;
  return number >= min && number <= max ? undefined : `must be a number from ${min} to ${max}, not ${number}`;
}

/** The value of a valid outcome as a decimal number with `limits.outcomeDecimals` places. */
export const decimalOf = ({ number, boolean }: Outcome): string =>
  number === undefined ? (boolean ? '1' : '0') : number.toFixed(limits.outcomeDecimals);

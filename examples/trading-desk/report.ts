import type { QueryUsageResponse, Receipt } from '@agentllm/client';

type Attempt = Receipt['attempts'][number];

const NAME_WIDTH = 21;
const MODEL_WIDTH = 27;
const small = (value: string, prefix: string) => value.replace(prefix, '').toLowerCase().replaceAll('_', ' ');

/** The lines about a call: what the agent used, and why. All of it comes from the receipt. */
export function receiptLines(receipt: Receipt): string[] {
  const { agent, attempts, skipped, adaptations, usage, revision, duration_ms, hop_index } = receipt;
  const last = attempts.at(-1);
  const model = last ? `${last.provider}/${last.model_name}` : 'no model';
  const tokens = `${usage?.input_tokens ?? '?'} + ${usage?.output_tokens ?? '?'} tokens`;
  const choice = hop_index === 0 ? 'first choice' : `hop ${hop_index ?? '-'}`;
  const facts = [
    choice,
    `config ${last?.config_id ?? '-'} at revision ${revision}`,
    sent(receipt),
    tokens,
    `${duration_ms} ms`,
  ];
  const first = `  ${agent.padEnd(NAME_WIDTH)}  ${model.padEnd(MODEL_WIDTH)}  ${facts.filter(Boolean).join(', ')}`;
  const reasons = [
    ...skipped.map((hop) => `${hop.provider}/${hop.model_name} is skipped: ${small(hop.reason, 'SKIP_REASON_')}`),
    ...attempts.filter(({ error_class }) => error_class !== 'ERROR_CLASS_UNSPECIFIED').map(failure),
    ...adaptations,
  ];
  return [first, ...reasons.map((reason) => `      ${reason}`)];
}

function failure({ provider, model_name, error_class, status, action, backoff_ms }: Attempt): string {
  const wait = backoff_ms === undefined ? '' : ` after ${backoff_ms} ms`;
  const what = `${small(error_class, 'ERROR_CLASS_')}${status === undefined ? '' : ` (${status})`}`;
  return `${provider}/${model_name}: ${what}, then ${small(action, 'ATTEMPT_ACTION_')}${wait}`;
}

const sent = ({ parameters }: Receipt) =>
  parameters.map(({ wire_name, value_json }) => `${wire_name} ${value_json}`).join(', ');

/** The lines about what each agent has cost. All of it comes from the service. */
export function costLines({ groups, totals }: Pick<QueryUsageResponse, 'groups' | 'totals'>): string[] {
  const rows = groups.map((group) => ({ name: group.agent, totals: group.totals }));
  return [...rows, { name: 'all agents', totals }].map(({ name, totals: sums }) => {
    const { attempts = 0n, unsuccessful_attempts = 0n, unpriced_attempts = 0n, cost_nano_usd = 0n } = sums ?? {};
    const tokens = `${sums?.input_tokens ?? 0n} + ${sums?.output_tokens ?? 0n} tokens`;
    const facts = [
      `${attempts} ${attempts === 1n ? 'attempt' : 'attempts'}`,
      unsuccessful_attempts > 0n && `${unsuccessful_attempts} failed`,
      tokens,
      unpriced_attempts > 0n && `${unpriced_attempts} without a known cost`,
    ];
    return `  ${name.padEnd(NAME_WIDTH)}  ${usd(cost_nano_usd)}  ${facts.filter(Boolean).join(', ')}`;
  });
}

/** An amount in nano-USD as USD, without rounding. */
function usd(nano: bigint): string {
  const digits = String(nano).padStart(10, '0');
  return `${digits.slice(0, -9)}.${digits.slice(-9)} USD`;
}

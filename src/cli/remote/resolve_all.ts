import type { ResolveConfigResult } from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { Exit } from '../kit/error_output.js';
import { UsageError } from '../kit/inputs.js';
import { type Column, tableOf } from '../kit/lists.js';
import { counted } from '../kit/print.js';
import type { Call } from '../kit/remote_command.js';

/** The largest page size of the method, by the contract. */
const PAGE = 200;
const INACTIVE = 9;

/** `agentllm resolve --all`: one line for each agent. */
export async function resolveAll(call: Call, provider_down: readonly string[]): Promise<number> {
  const { agent, at_revision, min_revision, subject } = call.inputs.message as Record<string, unknown>;
  if (agent !== undefined) throw new UsageError('name an agent or use --all, not both');
  if (at_revision !== undefined || call.local('why') === true)
    throw new UsageError('--at and --why need one agent: name it instead of --all');
  const results: ResolveConfigResult[] = [];
  let page_token = '';
  const budget_exhausted = (call.inputs.message['budget_exhausted'] ?? []) as readonly string[];
  let revision: bigint | undefined;
  do {
    const request = {
      provider_down,
      budget_exhausted,
      subject: subject as string | undefined,
      page_size: PAGE,
      page_token,
      min_revision: revision ?? (min_revision as bigint),
    };
    const page = await call.api.configs.batchResolveConfigs(request);
    results.push(...page.results);
    revision ??= page.revision;
    page_token = page.next_page_token;
  } while (page_token !== '');
  const plain = results.map(({ status, ...result }) => ({
    ...result,
    ...(status && { status: { code: status.code, message: status.message } }),
  }));
  call.print({ results: plain, revision }, () => tableOf(results, { columns, empty: 'no agents' }));
  return results.some(hasNoModel) ? Exit.failed : Exit.done;
}

/** Whether an active agent has no usable model. */
const hasNoModel = ({ resolved, status }: ResolveConfigResult): boolean =>
  status ? status.code !== INACTIVE : resolved?.hops.length === 0;

const columns: readonly Column<ResolveConfigResult>[] = [
  ['AGENT', ({ agent_name }) => agent_name],
  ['TRIES', ({ resolved, status }) => status?.message ?? chainOf(resolved)],
  ['SKIPPED', ({ resolved }) => (resolved?.skipped.length ? String(resolved.skipped.length) : '')],
  ['FINDINGS', ({ resolved }) => findingCounts(resolved)],
];

type Resolved = ResolveConfigResult['resolved'];

const chainOf = (resolved: Resolved): string =>
  resolved?.hops.map(({ provider, model_name }) => `${provider}/${model_name}`).join(' → ') ||
  'no model is left to try';

/** The number of errors and warnings. */
function findingCounts(resolved: Resolved): string {
  const count = (severity: string) => resolved?.findings.filter((one) => one.severity === severity).length ?? 0;
  const errors = count('SEVERITY_ERROR');
  const warnings = count('SEVERITY_WARNING');
  return [errors && counted(errors, 'error'), warnings && counted(warnings, 'warning')].filter(Boolean).join(', ');
}

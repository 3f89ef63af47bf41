import { lacksPort } from '../../client/address.js';
import { AgentLLMError } from '../../client/index.js';
import type { Connection } from './connection.js';
import { argumentFor, type Cause, type Input, type Problem, UsageError } from './inputs.js';
import { cut, pad, terminal, toJson, visible, widthOf } from './print.js';

/** How a command ends; EXIT_CODES says the same to people. */
export const Exit = { done: 0, refused: 1, usage: 2, notFound: 3, unreachable: 4 } as const;

export const EXIT_CODES = `Exit codes of the commands that ask a service:
  0  done
  1  refused, failed, or something that was checked is not well
  2  the command line, or a field, is wrong
  3  not found
  4  the service cannot be reached, or did not answer in time`;

const EXIT_OF: Readonly<Record<string, number>> = {
  INVALID_ARGUMENT: Exit.usage,
  NOT_FOUND: Exit.notFound,
  UNAVAILABLE: Exit.unreachable,
  DEADLINE_EXCEEDED: Exit.unreachable,
};

/** What to type after a refusal; the service says it in the words of its requests. */
const HINTS: Readonly<Record<string, string>> = {
  AGENT_HAS_CONFIGS: 'here: --cascade',
  AGENT_RESERVED: 'here: agentllm agents update <agent> --no-active',
  AGENT_NOT_FOUND: 'agentllm agents list shows what there is',
  CONFIG_NOT_FOUND: 'agentllm configs list shows what there is',
  PROVIDER_NOT_FOUND: 'agentllm providers list shows what there is',
  MODEL_NOT_FOUND: 'agentllm models list shows what there is',
  CREDENTIAL_NOT_FOUND: 'agentllm credentials list shows what there is',
  NO_ENABLED_CONFIG: 'agentllm configs upsert <agent> --model provider/model gives it one',
  KEY_PROVIDER_MISMATCH: 'here: --api-key, --clear-api-key, --credential or --unset credential',
  AGENT_INACTIVE: 'here: agentllm agents update <agent> --active',
  CONFIG_REVISION_NOT_FOUND: 'agentllm history <id> shows the revisions of a config',
  ENCRYPTION_KEY_MISSING: 'here: --skip-unreadable; agentllm key status shows the keys',
  KEY_NOT_RESTORABLE: 'here: --api-key, or --without-key',
  TOKEN_REQUIRED:
    'on the machine of the service, agentllm token create --role admin --local makes one; --help lists the roles',
  TOKEN_UNKNOWN: 'on the machine of the service, agentllm token list --local shows those that are good',
  TOKEN_EXPIRED: 'on the machine of the service, agentllm token create --local makes another',
  TOKEN_REVOKED: 'on the machine of the service, agentllm token create --local makes another',
  CERTIFICATE_NOT_BOUND: 'on the machine of the service; a token, by --token-file or AGENTLLM_TOKEN, does as well',
  PERMISSION_DENIED: 'agentllm token whoami shows what you may do; an administrator makes tokens of other roles',
  AGENT_NOT_ALLOWED: 'agentllm token whoami shows the agents that you may ask for',
  TOKEN_NOT_FOUND: 'agentllm token list --all shows what there is',
  CERTIFICATE_BOUND: 'agentllm token revoke <id>, and bind it anew',
  RATE_LIMITED: 'watch and the resident client hear of changes without asking again and again',
  STALE_ETAG: 'the command `get` shows the etag that holds now',
};

export interface Context {
  readonly json: boolean;
  /** As it was typed, without its values: `agentllm configs create`. */
  readonly command: string;
  readonly inputs: readonly Input[];
  readonly causes: readonly Cause[];
  readonly connection?: Connection | undefined;
  /** The name of the write that was tried. */
  readonly requestId?: string | undefined;
}

/** Says why a command failed and returns the exit code; faults of ours are thrown on. */
export function printError(error: unknown, context: Context): number {
  const report =
    error instanceof UsageError
      ? usageReport(error, context)
      : error instanceof AgentLLMError
        ? callReport(error, context)
        : undefined;
  if (!report) throw error;
  const lines = context.json ? toJson({ error: report.json }) : report.lines.map((line) => visible(line)).join('\n');
  terminal.err(withoutTokens(lines));
  return report.exit;
}

/** Of a token that was typed, what everybody may see. */
const withoutTokens = (text: string): string => text.replace(/\b(al_[a-z2-7]{10})_[\w-]+/g, '$1_…');

interface ErrorReport {
  readonly lines: readonly string[];
  readonly json: object;
  readonly exit: number;
}

function usageReport({ message, problems }: UsageError, { command }: Context): ErrorReport {
  const hint = `(${command} --help shows what it takes)`;
  const json = { code: 'INVALID_ARGUMENT', reason: 'USAGE', message: message, violations: problems, metadata: {} };
  if (problems.length === 0) return { lines: [`agentllm: ${message}`, hint], json, exit: Exit.usage };
  return {
    lines: [`agentllm: ${message} has ${problemsIn(problems)}`, ...aligned(problems), hint],
    json,
    exit: Exit.usage,
  };
}

function callReport(error: AgentLLMError, context: Context): ErrorReport {
  const { code, reason, violations, metadata } = error;
  const problems = violations.map(({ field, description }) => {
    const typed = argumentFor(field, context.inputs, context.causes);
    // A whole file is to blame: say what in it.
    return { typed, description: typed.startsWith('--from-file') ? `${field} ${description}` : description };
  });
  const json = {
    code,
    ...(reason && { reason }),
    message: error.message,
    violations: violations.map((violation, at) => ({ ...violation, argument: problems[at]?.typed })),
    metadata,
  };
  return { lines: linesOf(error, problems, context), json, exit: EXIT_OF[code] ?? Exit.refused };
}

function linesOf(error: AgentLLMError, problems: readonly Problem[], { connection, requestId }: Context): string[] {
  const { code, reason, message } = error;
  if (problems.length > 0 && reason === 'ROLLBACK_CONFLICT')
    return [`agentllm: revision ${error.metadata['revision']} cannot be undone`, ...aligned(problems)];
  if (problems.length > 0) return [`agentllm: the request has ${problemsIn(problems)}`, ...aligned(problems)];
  const isTransient = code === 'DEADLINE_EXCEEDED' || code === 'UNAVAILABLE';
  const retryHint =
    requestId &&
    isTransient &&
    !error.unsent &&
    (reason === undefined || reason === 'OUTCOME_UNKNOWN' || reason === 'DEADLINE_EXCEEDED')
      ? [`(it may have been done: the same command with --request-id ${requestId} does it once at most)`]
      : [];
  if (isTransient && reason === undefined && connection) return [...unreachable(connection, message), ...retryHint];
  if (code === 'UNIMPLEMENTED' && reason === undefined)
    return [`agentllm: the service does not know this method (${message}); it may be older than this command`];
  const next = reason && HINTS[reason];
  return [`agentllm: ${message}`, ...(next ? [`(${next})`] : []), ...retryHint];
}

function unreachable({ address, addressSource, timeoutMs }: Connection, message: string): string[] {
  const where = `${address} (${lacksPort(address) ? `${addressSource}, no port given: 443` : addressSource})`;
  const [, late, cause = ''] = /^(No answer from .* within \d+ ms)(?:; (.*))?$/s.exec(message) ?? [];
  const why = inOptions(late ? cause : message);
  return [
    late
      ? `agentllm: ${where} did not answer within ${timeoutMs} ms`
      : `agentllm: no service can be reached at ${where}`,
    ...(why ? [`  ${why}`] : []),
    ...(isOfTls(why) ? [] : [ADDRESS_HINT]),
  ];
}

const ADDRESS_HINT =
  '  agentllm serve starts one here; --address or AGENTLLM_ADDRESS names another place, --timeout another time to wait';

/** Whether there is a service, with which only the certificates are not agreed on. */
export const isOfTls = (message: string): boolean => /\b(certificate|TLS)\b/.test(message);

/** The client names its own options; ours have other names. */
export const inOptions = (message: string): string =>
  message
    .replace(/\b(leave|give) tls\b(?!\.)/, '$1 --tls')
    .replace(/\btls\.(ca|cert|key)\b/g, '--$1')
    .replace('tls.serverName', '--server-name');

const distinct = (problems: readonly Problem[]) => [
  ...new Map(problems.map((problem) => [JSON.stringify([problem.typed, problem.description]), problem])).values(),
];

function problemsIn(problems: readonly Problem[]): string {
  const { length } = distinct(problems);
  return length === 1 ? 'a problem' : `${length} problems`;
}

const MAX_ARGUMENT_LENGTH = 40;

/** Each problem behind what it is about, in two columns; one option may have set two fields with the same problem. */
function aligned(all: readonly Problem[]): string[] {
  const problems = distinct(all);
  const typed = problems.map((problem) => visible(cut(problem.typed, MAX_ARGUMENT_LENGTH)));
  const width = Math.max(...typed.map(widthOf));
  return problems.map(({ description }, at) => `  ${pad(typed[at] as string, width)}  ${description}`);
}

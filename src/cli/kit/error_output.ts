import { lacksPort } from '../../client/address.js';
import { AgentLLMError } from '../../client/index.js';
import type { Connection } from './connection.js';
import { argumentFor, type Cause, type Input, type Problem, UsageError } from './inputs.js';
import { cut, pad, terminal, toJson, visible, widthOf } from './print.js';

/** The exit codes; EXIT_CODES is their description in the help. */
export const Exit = { done: 0, failed: 1, usage: 2, notFound: 3, unreachable: 4 } as const;

export const EXIT_CODES = `Exit codes of the commands that call a service:
  0  success
  1  the request was rejected or failed, or a check found a problem
  2  the command line or a field is invalid
  3  not found
  4  the service cannot be reached, or did not respond in time`;

const EXIT_OF: Readonly<Record<string, number>> = {
  INVALID_ARGUMENT: Exit.usage,
  NOT_FOUND: Exit.notFound,
  UNAVAILABLE: Exit.unreachable,
  DEADLINE_EXCEEDED: Exit.unreachable,
};

/** The remedy for an error, in terms of the command line. The message of the service names request fields instead. */
const HINTS: Readonly<Record<string, string>> = {
  AGENT_HAS_CONFIGS: 'use --cascade',
  AGENT_RESERVED: 'use agentllm agents update <agent> --no-active',
  AGENT_NOT_FOUND: 'agentllm agents list shows the agents',
  CONFIG_NOT_FOUND: 'agentllm configs list shows the configs',
  PROVIDER_NOT_FOUND: 'agentllm providers list shows the providers',
  MODEL_NOT_FOUND: 'agentllm models list shows the models',
  CREDENTIAL_NOT_FOUND: 'agentllm credentials list shows the credentials',
  NO_ENABLED_CONFIG: 'agentllm configs upsert <agent> --model provider/model creates one',
  KEY_PROVIDER_MISMATCH: 'use --api-key, --clear-api-key, --credential or --unset credential',
  AGENT_INACTIVE: 'use agentllm agents update <agent> --active',
  CONFIG_REVISION_NOT_FOUND: 'agentllm history <id> shows the revisions of a config',
  ENCRYPTION_KEY_MISSING: 'use --skip-unreadable; agentllm key status shows the keys',
  KEY_NOT_RESTORABLE: 'use --api-key or --without-key',
  TOKEN_REQUIRED:
    'on the machine of the service, agentllm token create --role admin --local creates one; --help lists the roles',
  TOKEN_UNKNOWN: 'on the machine of the service, agentllm token list --local shows the valid tokens',
  TOKEN_EXPIRED: 'on the machine of the service, agentllm token create --local creates another',
  TOKEN_REVOKED: 'on the machine of the service, agentllm token create --local creates another',
  CERTIFICATE_NOT_BOUND: 'run it on the machine of the service; a token (--token-file or AGENTLLM_TOKEN) works as well',
  PERMISSION_DENIED:
    'agentllm token whoami shows your permissions; an administrator can create tokens with other roles',
  AGENT_NOT_ALLOWED: 'agentllm token whoami shows the agents that you have access to',
  TOKEN_NOT_FOUND: 'agentllm token list --all shows the tokens',
  CERTIFICATE_BOUND: 'agentllm token revoke <id>, then bind it again',
  RATE_LIMITED: 'agentllm watch and the resident client receive changes without polling',
  AGENT_NAME_TAKEN: 'agentllm agents update <agent> changes it',
  CREDENTIAL_NAME_TAKEN: 'agentllm credentials update <name> changes it',
  PROVIDER_NAME_TAKEN: 'agentllm providers list shows the names and aliases',
  MODEL_NAME_TAKEN: 'agentllm models update provider/model changes it',
  REVISION_COMPACTED: 'agentllm history shows the revisions that are available',
  REVISION_IN_FUTURE: 'agentllm history shows the newest revision',
  INVALID_RESUME_TOKEN: 'omit --since',
  RESUME_TOKEN_FILTER_CHANGED: 'name the same agents, or omit --since',
  STORE_CHANGED: 'omit --since',
  EXPERIMENT_NOT_FOUND: 'agentllm experiments list shows the experiments',
  EXPERIMENT_NAME_TAKEN: 'agentllm experiments update <name> changes the existing experiment',
  EXPERIMENT_STATE: 'agentllm experiments status <name> shows the state and the next command',
  EXPERIMENT_ACTIVE: 'agentllm experiments conclude <name> --without-winner ends that experiment and changes no config',
  TOO_MANY_EXPERIMENTS: 'agentllm experiments delete <name> deletes an experiment and its results',
  CONFIG_IN_EXPERIMENT: 'agentllm experiments conclude <name> ends the experiment',
  STALE_ETAG: 'the command `get` shows the current etag',
};

export interface Context {
  readonly json: boolean;
  /** The command without its arguments and options: `agentllm configs create`. */
  readonly command: string;
  readonly inputs: readonly Input[];
  readonly causes: readonly Cause[];
  readonly connection?: Connection | undefined;
  /** The idempotency key of the write. */
  readonly requestId?: string | undefined;
}

/** Prints why a command failed and returns the exit code. Throws errors that are not a UsageError or AgentLLMError. */
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

/** Removes the secret part of access tokens; their id stays. */
const withoutTokens = (text: string): string => text.replace(/\b(al_[a-z2-7]{10})_[\w-]+/g, '$1_…');

interface ErrorReport {
  readonly lines: readonly string[];
  readonly json: object;
  readonly exit: number;
}

function usageReport({ message, problems }: UsageError, { command }: Context): ErrorReport {
  const hint = `(${command} --help shows the options)`;
  const json = { code: 'INVALID_ARGUMENT', reason: 'USAGE', message: message, violations: problems, metadata: {} };
  if (problems.length === 0) return { lines: [`agentllm: ${message}`, hint], json, exit: Exit.usage };
  return {
    lines: [`agentllm: ${message} has ${problemsIn(problems)}`, ...alignedLines(problems), hint],
    json,
    exit: Exit.usage,
  };
}

function callReport(error: AgentLLMError, context: Context): ErrorReport {
  const { code, reason, violations, metadata } = error;
  const problems = violations.map(({ field, description }) => {
    const typed = argumentFor(field, context.inputs, context.causes);
    // The argument is a whole file, so the message names the field in the file.
    return { typed, description: typed.startsWith('--from-file') ? `${field} ${description}` : description };
  });
  const json = {
    code,
    ...(reason && { reason }),
    message: error.message,
    violations: violations.map((violation, at) => ({ ...violation, argument: problems[at]?.typed })),
    metadata,
  };
  return { lines: linesOf(error, problems, context), json, exit: EXIT_OF[code] ?? Exit.failed };
}

function linesOf(error: AgentLLMError, problems: readonly Problem[], { connection, requestId }: Context): string[] {
  const { code, reason, message } = error;
  if (problems.length > 0 && reason === 'ROLLBACK_CONFLICT')
    return [`agentllm: revision ${error.metadata['revision']} cannot be rolled back`, ...alignedLines(problems)];
  if (problems.length > 0) return [`agentllm: the request has ${problemsIn(problems)}`, ...alignedLines(problems)];
  const isTransient = code === 'DEADLINE_EXCEEDED' || code === 'UNAVAILABLE';
  const retryHint =
    requestId &&
    isTransient &&
    !error.unsent &&
    (reason === undefined || reason === 'OUTCOME_UNKNOWN' || reason === 'DEADLINE_EXCEEDED')
      ? [`(the outcome is unknown: the same command with --request-id ${requestId} is applied at most once)`]
      : [];
  if (isTransient && reason === undefined && connection) return [...unreachable(connection, message), ...retryHint];
  if (code === 'UNIMPLEMENTED' && reason === undefined)
    return [`agentllm: the service does not have this method (${message}); it may be older than this command`];
  const next = reason && HINTS[reason];
  return [`agentllm: ${message}`, ...(next ? [`(${next})`] : []), ...retryHint];
}

function unreachable({ address, addressSource, timeoutMs }: Connection, message: string): string[] {
  const where = `${address} (${lacksPort(address) ? `${addressSource}, no port given: 443` : addressSource})`;
  const [, timeout, cause = ''] = /^(No response from .* within \d+ ms)(?:; (.*))?$/s.exec(message) ?? [];
  const reason = inOptions(timeout ? cause : message);
  return [
    timeout
      ? `agentllm: ${where} did not respond within ${timeoutMs} ms`
      : `agentllm: no service is reachable at ${where}`,
    ...(reason ? [`  ${reason}`] : []),
    ...(isOfTls(reason) ? [] : [ADDRESS_HINT]),
  ];
}

const ADDRESS_HINT =
  '  agentllm serve starts a service; --address or AGENTLLM_ADDRESS selects another one, --timeout sets the time to wait';

/** Whether the error is about TLS or certificates: then a service was reached. */
export const isOfTls = (message: string): boolean => /\b(certificate|TLS)\b/.test(message);

/** Replaces the names of the client's options by those of the command line. */
export const inOptions = (message: string): string =>
  message
    .replace(/\b(leave|give|set) tls\b(?!\.)/, '$1 --tls')
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

/** The problems in two columns: the argument, then the description. Two fields of one option give one line. */
function alignedLines(all: readonly Problem[]): string[] {
  const problems = distinct(all);
  const typed = problems.map((problem) => visible(cut(problem.typed, MAX_ARGUMENT_LENGTH)));
  const width = Math.max(...typed.map(widthOf));
  return problems.map(({ description }, at) => `  ${pad(typed[at] as string, width)}  ${description}`);
}

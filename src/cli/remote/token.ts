import type { Command } from 'commander';
import type { CreateTokenRequest, GetCallerResponse, Token } from '../../../gen/ts/agentllm/v1/access_service.js';
import { makeToken } from '../../domain/token.js';
import { variable } from '../kit/environment.js';
import { Exit } from '../kit/error_output.js';
import { type Input, UsageError } from '../kit/inputs.js';
import { type List, limitInput, minRevision, printList } from '../kit/lists.js';
import { ago, type Group, lines, moment, record, small, terminal, visible } from '../kit/print.js';
import { type Call, type RemoteCommand, remoteGroup } from '../kit/remote_command.js';
import { choice, flag, type Kind, list, span, text, word } from '../kit/values.js';
import { writeInputs, writeSummary } from '../kit/writes.js';
import { localAccess, storePlace, type TokenMethods } from '../local/local_access.js';

const role = choice('ROLE_', 'role', ['admin', 'operator', 'viewer', 'agent']);

const localInput: Input = {
  name: 'local',
  kind: flag,
  help: 'use the store on this machine, which needs no token, even if an address is set',
};

/** Options that select a service, besides the environment. */
const SERVICE_OPTIONS = ['address', 'token-file', 'tls', 'ca', 'cert', 'key', 'server-name'];

const TARGET_HELP = `On the machine of the service the command needs no token: it uses the store directly, through the running service or
in the database of DATABASE_URL or DATA_DIR. With --address, --token-file, --cert, AGENTLLM_ADDRESS, AGENTLLM_TOKEN or
AGENTLLM_CERT it calls that service, which requires the role admin.`;

/** The id of a token. The text of a token is accepted too, because it begins with the id. */
const tokenId: Kind = {
  value: 'id',
  read: (raw) => TOKEN_TEXT.exec(raw)?.[1] ?? raw,
};
const TOKEN_TEXT = /\b(al_[a-z2-7]{10})_/;

const idArgument: Input = {
  name: '<id>',
  to: 'id',
  kind: tokenId,
  help: 'the id of the token, al_ and ten characters',
};

/** Where a command runs: in the local store, or at a service. */
interface Target {
  readonly access: TokenMethods;
  readonly isLocal: boolean;
  readonly name: string;
}

function targetOf(call: Call): Target {
  const named = SERVICE_OPTIONS.filter((option) => call.local(option) !== undefined);
  const isNamed = (['AGENTLLM_ADDRESS', 'AGENTLLM_TOKEN', 'AGENTLLM_CERT'] as const).some(variable);
  const isForced = call.local('local') === true;
  if (isForced && named.length > 0)
    throw UsageError.of([{ typed: '--local', description: `calls no service: omit --${named.join(', --')}` }]);
  if (!isForced && (named.length > 0 || isNamed))
    return { access: call.api.access, isLocal: false, name: call.address };
  if (call.inputs.message['wait_for_adoption'] !== undefined)
    throw UsageError.of([{ typed: '--wait', description: 'needs a service: add --address' }]);
  return { access: localAccess, isLocal: true, name: `the store itself (${storePlace()})` };
}

/** Prints a note on standard error, unless the output is JSON. */
function printNote(call: Call, line: string): void {
  if (!call.json) terminal.err(visible(line));
}

const create: RemoteCommand = {
  name: 'create',
  description: 'create a token, or give a role to client certificates; prints the text of the token only',
  more: `${TARGET_HELP}

The text is shown once. The first token closes the service: from then on every caller needs a token.`,
  inputs: [
    { name: 'role', to: 'role', kind: role, help: 'its permissions; required' },
    {
      name: 'agents',
      to: 'agents',
      kind: list(word('names', 'agents')),
      help: 'with --role agent: the names of its agents, separated by commas; can be repeated',
    },
    { name: 'all-agents', to: 'all_agents', kind: flag, help: 'with --role agent: all agents, including future ones' },
    { name: 'name', to: 'name', kind: text, help: 'its purpose, at most 100 characters (default: its role)' },
    {
      name: 'certificate',
      to: 'certificate_identity',
      kind: word('identity'),
      help: 'instead of a text: client certificates with this URI or DNS name, or CN=common-name',
    },
    {
      name: 'lifetime',
      to: 'lifetime',
      kind: span,
      help: 'its lifetime, 60s to 3650d (default: until it is revoked)',
    },
    localInput,
    ...writeInputs,
  ],
  examples: [
    [
      'agentllm token create --role admin --local > admin.token',
      'the first token; the file gives administrator access',
    ],
    ['agentllm token create --role agent --agents trader,news_analyst --lifetime 90d', 'for a process with two agents'],
    ['agentllm token create --role viewer --certificate CN=dashboard', 'for a certificate; prints the id'],
  ],
  next: 'AGENTLLM_TOKEN or --token-file sends it; agentllm token list shows the tokens',
  async run(call) {
    const where = targetOf(call);
    const response = await where.access.createToken(call.request(requestFieldsOf(call)));
    const token = response.token as Token;
    if (call.json) return call.print(response, () => '');
    if (call.inputs.message['validate_only'] === true)
      terminal.out(writeSummary(call, 'created', titleOf(token), response));
    else if (response.text === '' && token.certificate_identity === '') return reportRepeated(call, token);
    else {
      terminal.out(response.text || token.id);
      await printDetails(call, token, where);
    }
    return undefined;
  },
};

/** The request fields that differ from the command line: split agent names, and the default name. */
function requestFieldsOf({ inputs }: Call): Readonly<Record<string, unknown>> {
  const { role = '', name, agents = [], certificate_identity } = inputs.message as Partial<CreateTokenRequest>;
  // An unset variable in a script gives an empty identity. It must not create a token that has a text.
  if (certificate_identity === '')
    throw UsageError.of([
      { typed: '--certificate ""', description: 'must not be empty; omit it for a token with a text' },
    ]);
  const names = agents.flatMap((one) => one.split(',')).map((one) => one.trim());
  return { agents: names, name: name ?? (small(role, 'ROLE_') || 'token') };
}

async function printDetails(call: Call, token: Token, { access, isLocal, name }: Target): Promise<void> {
  const by = isLocal ? name : `${name} as ${(await call.api.access.getCaller()).actor}`;
  printNote(call, `${titleOf(token)}, ${expiryOf(token)}; created ${isLocal ? 'in' : 'by'} ${by}`);
  if (token.certificate_identity !== '')
    printNote(
      call,
      `Clients with a certificate for ${token.certificate_identity} have access; agentllm token revoke removes it.`,
    );
  else {
    printNote(call, 'The text is shown only once: store it where only its user can read it.');
    printNote(call, 'Send it with AGENTLLM_TOKEN=<text> or --token-file <file>, or as authorization: Bearer <text>.');
  }
  if (isLocal && (await access.listTokens({ show_ended: true, page_size: 2 })).tokens.length === 1)
    printNote(call, 'This is the first token: from now on every caller needs a token, on this machine too.');
}

function reportRepeated(call: Call, { id }: Token): number {
  printNote(call, `agentllm: this request has already created ${id}, and the text is shown only once`);
  printNote(call, `(agentllm token revoke ${id}, then create another)`);
  return Exit.failed;
}

/** `token al_k3x9q2m7wd "desk": agent, for trader` */
function titleOf({ id, name, role, agents, all_agents }: Token): string {
  const scope = all_agents ? ', for all agents' : agents.length > 0 ? `, for ${agents.join(', ')}` : '';
  // A dry run has no id.
  return `token ${id ? `${id} ` : ''}"${name}": ${small(role, 'ROLE_')}${scope}`;
}

const expiryOf = ({ expires_at }: Token) => (expires_at ? `until ${moment(expires_at)}` : 'until it is revoked');
const agentsOf = ({ agents, all_agents }: Token) => (all_agents ? 'all' : agents.join(', '));

const tokenList: List<Token> = {
  field: 'tokens',
  columns: [
    ['ID', ({ id }) => id],
    ['NAME', ({ name }) => name],
    ['ROLE', (token) => small(token.role, 'ROLE_')],
    ['AGENTS', agentsOf],
    ['CERTIFICATE', ({ certificate_identity }) => certificate_identity || '-'],
    ['STATE', ({ state }) => small(state, 'TOKEN_STATE_')],
    ['EXPIRES', ({ expires_at }) => moment(expires_at) || 'never'],
    ['LAST USED', ({ last_used_at }) => ago(last_used_at) || 'never'],
  ],
  empty:
    'no valid tokens; agentllm token create --role admin --local creates one, --all shows revoked and expired ones',
  noMatch:
    'no tokens: the service is open to every caller on its machine; agentllm token create --role admin --local closes it',
  fetchPage: (api, request) => api.access.listTokens(request),
};

const listCommand: RemoteCommand = {
  name: 'list',
  description: 'show the valid tokens, without their texts',
  more: TARGET_HELP,
  inputs: [
    { name: 'all', to: 'show_ended', kind: flag, help: 'also revoked and expired tokens' },
    localInput,
    limitInput,
    minRevision,
  ],
  examples: [
    ['agentllm token list', 'the valid tokens'],
    ['agentllm token list --all --json', 'all tokens, for a program'],
  ],
  next: 'agentllm token revoke <id> revokes a token',
  async run(call) {
    const { access, name } = targetOf(call);
    await printList(call, { ...tokenList, fetchPage: (_, request) => access.listTokens(request) });
    printNote(call, `(of ${name})`);
    return undefined;
  },
};

const show: RemoteCommand = {
  name: 'show',
  description: 'show all fields of a token; no command shows its text',
  more: TARGET_HELP,
  inputs: [idArgument, localInput, minRevision],
  examples: [
    ['agentllm token create --role viewer --certificate CN=board > board.id', 'give a certificate access'],
    ['agentllm token show $(cat board.id)', 'show the token'],
  ],
  async run(call) {
    const { access, name } = targetOf(call);
    const response = await access.getToken(call.request());
    call.print(response, () => record(groupsOf(response.token as Token)));
    printNote(call, `(of ${name})`);
    return undefined;
  },
};

const revoke: RemoteCommand = {
  name: 'revoke',
  description: 'revoke a token permanently; its open streams are closed',
  more: `${TARGET_HELP}

The revocation applies to a replica as soon as the replica receives it, and not while the database is unavailable.`,
  inputs: [idArgument, localInput, ...writeInputs],
  examples: [
    ['agentllm token create --role viewer --certificate CN=board > board.id', 'give a certificate access'],
    ['agentllm token revoke $(cat board.id) --reason "the board is gone"', 'revoke it'],
  ],
  next: 'agentllm audit --kind write shows who created and revoked tokens',
  async run(call) {
    const { access, name, isLocal } = targetOf(call);
    const response = await access.revokeToken(call.request());
    const token = response.token as Token;
    call.print(response, () => writeSummary(call, 'revoked', `token ${token.id} "${token.name}"`, response));
    printNote(call, `(${isLocal ? 'in' : 'by'} ${name})`);
    return undefined;
  },
};

function groupsOf(token: Token): Group[] {
  return [
    [
      `token ${token.id}`,
      lines(
        ['name', token.name],
        ['role', small(token.role, 'ROLE_')],
        ['agents', agentsOf(token)],
        ['certificate', token.certificate_identity],
        ['state', small(token.state, 'TOKEN_STATE_')],
        ['created', token.created_at],
        ['expires', token.expires_at ?? 'never'],
        ['revoked', token.revoked_at],
        ['last used', token.last_used_at ?? 'never'],
        ['revision', token.revision],
      ),
    ],
  ];
}

const whoami: RemoteCommand = {
  name: 'whoami',
  description: 'show the identity and the permissions that a service gives you',
  inputs: [minRevision],
  examples: [['agentllm token whoami', 'with AGENTLLM_TOKEN, --token-file, --cert or nothing']],
  async run(call) {
    const response = await call.api.access.getCaller(call.request());
    return call.print(response, () => record([callerGroup(call, response)]));
  },
};

function callerGroup({ address }: Call, caller: GetCallerResponse): Group {
  const isAnonymous = caller.role === 'ROLE_UNSPECIFIED';
  const permissions = caller.permissions.map((one) => small(one, 'PERMISSION_')).join(', ');
  return [
    `${caller.actor} at ${address}`,
    lines(
      ['role', isAnonymous ? 'none: the service is open' : small(caller.role, 'ROLE_')],
      ['agents', caller.all_agents ? 'all' : caller.agents],
      ['expires', caller.expires_at ?? (isAnonymous ? undefined : 'never')],
      ['may', caller.role === 'ROLE_ADMIN' ? 'everything' : permissions],
    ),
  ];
}

/** `agentllm token …`: access to the service. */
export function tokenCommand(): Command {
  const command = remoteGroup(
    'token',
    'manage access to the service: tokens and client certificates with roles',
    'Start with: agentllm token create --role admin --local > admin.token, on the machine of the service.',
    [create, listCommand, show, revoke, whoami],
  );
  command
    .command('generate')
    .description('print the text of a token for BOOTSTRAP_TOKEN_FILE; nothing is stored')
    .action(() => terminal.out(makeToken().text));
  return command;
}

import type { Command } from 'commander';
import { Credential } from '../../../gen/ts/agentllm/v1/credential.js';
import type { Body } from '../kit/from_file.js';
import type { Input } from '../kit/inputs.js';
import { type List, limitInput, minRevision, printList } from '../kit/lists.js';
import { ago, type Group, lines, record, recordOf, small } from '../kit/print.js';
import { type RemoteCommand, remoteGroup } from '../kit/remote_command.js';
import { credential, provider, text } from '../kit/values.js';
import { etagInput, keyInput, requireChange, writeInputs, writeSummary } from '../kit/writes.js';

const body: Body = { at: 'credential', type: 'Credential', message: Credential };

const nameArgument = (to: string): Input => ({
  name: '<name>',
  to,
  kind: credential,
  mask: '',
  help: 'the name, 1 to 100 characters',
});

const description: Input = {
  name: 'description',
  to: 'credential.description',
  kind: text,
  clears: true,
  help: 'its purpose, at most 1000 characters',
};

const credentialList: List<Credential> = {
  field: 'credentials',
  columns: [
    ['NAME', ({ name }) => name],
    ['PROVIDER', (row) => row.provider],
    ['KEY', ({ api_key_state }) => small(api_key_state, 'API_KEY_STATE_')],
    ['CONFIGS', ({ config_count }) => String(config_count)],
    ['DESCRIPTION', (row) => row.description ?? ''],
    ['UPDATED', ({ updated_at }) => ago(updated_at)],
  ],
  noMatch: 'no credential matches',
  empty: 'no credentials; agentllm credentials create <name> --provider openai creates one and prompts for its key',
  fetchPage: (api, request) => api.credentials.listCredentials(request),
};

const list: RemoteCommand = {
  name: 'list',
  description: 'show the credentials, without their keys',
  inputs: [
    { name: 'provider', to: 'provider', kind: provider, help: 'only credentials of this provider' },
    limitInput,
    minRevision,
  ],
  examples: [['agentllm credentials list', 'all credentials']],
  next: 'agentllm configs update <id> --credential <name> assigns one to a config',
  run: (call) => printList(call, credentialList),
};

const get: RemoteCommand = {
  name: 'get',
  description: 'show all fields of a credential; no command shows its key',
  inputs: [nameArgument('name'), minRevision],
  examples: [
    ['printf %s "$OPENAI_API_KEY" | agentllm credentials create desk --provider openai', 'store one'],
    ['agentllm credentials get desk', 'show it'],
  ],
  async run(call) {
    const response = await call.api.credentials.getCredential(call.request());
    return call.print(response, () => record(groupsOf(response.credential as Credential)));
  },
};

const create: RemoteCommand = {
  name: 'create',
  description: 'store an API key under a name; any number of configs can use it',
  more: 'The command prompts for the key at a terminal and reads it from standard input otherwise; it is never an argument.\nThe service needs an ENCRYPTION_KEY to store it (agentllm key generate prints one).',
  inputs: [
    nameArgument('credential.name'),
    {
      name: 'provider',
      to: 'credential.provider',
      kind: provider,
      mask: '',
      help: 'the provider that the key is for, by name or alias; required',
    },
    description,
    { ...keyInput, required: true },
    ...writeInputs,
  ],
  body,
  examples: [
    ['printf %s "$OPENAI_API_KEY" | agentllm credentials create desk --provider openai', 'from the environment'],
    ['agentllm configs upsert trader --model openai/gpt-5.4 --credential desk', 'assign it to an agent'],
  ],
  next: 'agentllm configs upsert <agent> --credential <name> assigns it to an agent',
  async run(call) {
    const response = await call.api.credentials.createCredential(call.request());
    return call.print(response, () =>
      writeSummary(call, 'created', titleOf(response.credential as Credential), response),
    );
  },
};

const update: RemoteCommand = {
  name: 'update',
  description: 'replace the key of a credential for all configs that use it, or its description',
  inputs: [
    nameArgument('credential.name'),
    description,
    { ...keyInput, help: keyInput.help.replace('set an', 'replace the') },
    etagInput('credential.etag'),
    ...writeInputs,
  ],
  body,
  patches: true,
  examples: [
    ['printf %s "$OPENAI_API_KEY" | agentllm credentials create desk --provider openai', 'store one'],
    ['printf %s "$NEW_API_KEY" | agentllm credentials update desk --api-key', 'replace its key'],
  ],
  next: 'agentllm configs health --all checks the keys with the providers',
  async run(call) {
    requireChange(call, body, [description]);
    const response = await call.api.credentials.updateCredential(call.request());
    return call.print(response, () =>
      writeSummary(call, 'updated', titleOf(response.credential as Credential), response),
    );
  },
};

const remove: RemoteCommand = {
  name: 'delete',
  description: 'delete a credential that no config uses',
  inputs: [nameArgument('name'), etagInput('etag'), ...writeInputs],
  examples: [
    ['printf %s "$OPENAI_API_KEY" | agentllm credentials create desk --provider openai', 'store one'],
    ['agentllm credentials delete desk', 'delete it'],
  ],
  async run(call) {
    const response = await call.api.credentials.deleteCredential(call.request());
    return call.print(response, () =>
      writeSummary(call, 'deleted', `credential ${call.inputs.message['name']}`, response),
    );
  },
};

const titleOf = (row: Credential) => `credential ${row.name} of ${row.provider}`;

function groupsOf(row: Credential): Group[] {
  return [
    [
      titleOf(row),
      lines(
        ['key', small(row.api_key_state, 'API_KEY_STATE_')],
        ['configs', row.config_count],
        ['description', row.description],
      ),
    ],
    recordOf(row),
  ];
}

/** `agentllm credentials …`: named API keys. */
export function credentialsCommand(): Command {
  return remoteGroup(
    'credentials',
    'store named API keys that many configs can use; a stored key is never shown',
    'Start with: agentllm credentials create <name> --provider openai, which prompts for the key.',
    [list, get, create, update, remove],
  );
}

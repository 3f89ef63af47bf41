import type { Command } from 'commander';
import type { EncryptionKey, GetEncryptionStatusResponse } from '../../../gen/ts/agentllm/v1/credential_service.js';
import { generateKey } from '../../domain/fernet.js';
import { minRevision } from '../kit/lists.js';
import { counted, table, terminal, visible } from '../kit/print.js';
import { type RemoteCommand, remoteGroup } from '../kit/remote_command.js';
import { rotate } from './rotate.js';

/** `agentllm key status`: the number of stored API keys per encryption key. */
const status: RemoteCommand = {
  name: 'status',
  description: 'show the ids of the encryption keys, and how many stored API keys each has encrypted',
  more: `The output is the view of one replica; other replicas may have another ENCRYPTION_KEY. A key encrypts, decrypts, or is
missing: the service cannot read what a missing key has encrypted.`,
  inputs: [minRevision],
  examples: [['agentllm key status', 'before and after a rotation']],
  next: 'agentllm key rotate re-encrypts all API keys with the key that encrypts',
  async run(call) {
    const response = await call.api.credentials.getEncryptionStatus(call.request());
    return call.print(response, () => statusText(response));
  },
};

function statusText(response: GetEncryptionStatusResponse): string {
  const { keys, problem } = response;
  const heads = ['KEY', 'STATE', 'CONFIGS', 'CREDENTIALS'];
  const rows = keys.map((key) => [key.id, roleOf(key), String(key.config_count), String(key.credential_count)]);
  return [
    ...(keys.length > 0 ? [table(heads, rows)] : []),
    ...(problem ? [problem] : []),
    ...statusLines(response),
  ].join('\n');
}

const roleOf = ({ primary, available }: EncryptionKey) => (primary ? 'encrypts' : available ? 'decrypts' : 'missing');

function statusLines({
  ready,
  keys,
  outdated_count,
  unreadable_count,
  unreadable,
}: GetEncryptionStatusResponse): string[] {
  const stored = keys.reduce((sum, { config_count, credential_count }) => sum + config_count + credential_count, 0);
  const lines: string[] = [];
  const all = counted(stored, 'stored API key');
  if (stored === 0) lines.push('no API keys are stored');
  else if (ready && outdated_count === 0)
    lines.push(`${all}, ${stored === 1 ? '' : 'all '}under the key that encrypts`);
  else if (ready) lines.push(`${outdated_count} of ${all} not under the key that encrypts: agentllm key rotate`);
  if (unreadable_count > 0) {
    const more = unreadable_count > unreadable.length ? ` and ${unreadable_count - unreadable.length} more` : '';
    lines.push(`${counted(unreadable_count, 'key')} cannot be decrypted: ${unreadable.map(visible).join(', ')}${more}`);
  }
  return lines;
}

/** `agentllm key …`: the encryption keys of ENCRYPTION_KEY. */
export function keyCommand(): Command {
  const description = 'generate keys for ENCRYPTION_KEY, and re-encrypt the stored API keys';
  const command = remoteGroup('key', description, 'Start with: agentllm key generate', [rotate, status]);
  command
    .command('generate')
    .description('print a new encryption key; store it where only the service can read it')
    .action(() => terminal.out(generateKey()));
  return command;
}

import type { Finding } from '../../../gen/ts/agentllm/v1/finding.js';
import type { AdoptingWatcher, Adoption } from '../../../gen/ts/agentllm/v1/write.js';
import type { Body } from './from_file.js';
import { type Input, maskOf, UsageError } from './inputs.js';
import { counted, small, table, visible } from './print.js';
import type { Call } from './remote_command.js';
import { duration, flag, secret, text, word } from './values.js';

const group = 'Writing:';

/** The inputs of every write. */
export const writeInputs: readonly Input[] = [
  {
    name: 'reason',
    to: 'reason',
    kind: text,
    group,
    help: 'reason for the change, kept in the history, at most 500 characters',
  },
  { name: 'dry-run', to: 'validate_only', kind: flag, group, help: 'run all checks and write nothing' },
  {
    name: 'request-id',
    to: 'request_id',
    kind: word('uuid'),
    group,
    help: 'idempotency key: a repetition with the same key within 24 hours is not applied twice',
  },
  {
    name: 'wait',
    to: 'wait_for_adoption.timeout',
    kind: duration,
    group,
    help: 'how long to wait until the watching processes have applied the change, at most 60000; a timeout does not roll it back',
  },
];

/** The etag that a write sends to detect concurrent changes. `to` is its path in the request. */
export const etagInput = (to: string, of = 'the resource'): Input => ({
  name: 'etag',
  to,
  kind: word('etag'),
  mask: '',
  group,
  help: `write only if ${of} still has this etag, as get shows it`,
});

export const keyInput: Input = {
  name: 'api-key',
  to: 'api_key',
  kind: secret,
  help: 'set an API key: prompted for at a terminal, else read from standard input; never an argument',
};

/** Rejects an update without fields: without a mask, the service would apply the fields that are present. */
export function requireChange({ inputs }: Call, body: Body, fields: readonly Input[]): void {
  const { message, touched } = inputs;
  if (maskOf(fields, touched, body.at).length > 0 || 'api_key' in message || 'clear_api_key' in message) return;
  throw new UsageError('nothing to change: set an option, or clear options with --unset');
}

/** The fields that every response of a write has. */
interface WriteResponse {
  readonly revision: bigint;
  readonly adoption?: Adoption | undefined;
}

/** The summary of a write, with its adoption where that was requested. `done` is a participle: `updated`. */
export function writeSummary(call: Call, done: string, what: string, { revision, adoption }: WriteResponse): string {
  const subject = visible(what);
  if (call.inputs.message['validate_only'] === true)
    return `dry run at revision ${revision}, nothing was written: ${subject} would be ${done}`;
  return `${done} ${subject} at revision ${revision}${adoption ? `\n${adoptionLine(adoption)}` : ''}`;
}

/** Maximum number of pending processes that are named. */
const MAX_NAMES = 5;

/** `applied by 3 of 4 processes; pending: worker-7` */
function adoptionLine({ complete, applied_count, pending_count, pending }: Adoption): string {
  const all = applied_count + pending_count;
  if (all === 0) return complete ? 'no process watches the changed resource' : 'the adoption is unknown';
  const line = `applied by ${applied_count} of ${counted(all, 'process', 'processes')}`;
  if (pending_count === 0) return line;
  const names = pending.slice(0, MAX_NAMES).map(nameOfWatcher);
  const more = pending_count > names.length ? ` and ${pending_count - names.length} more` : '';
  return `${line}; pending: ${names.join(', ')}${more}`;
}

/** The name of a process, else the start of its id. */
const nameOfWatcher = ({ client_id, client_name }: AdoptingWatcher) => visible(client_name) || client_id.slice(0, 8);

/** The findings below the summary of a write, in the order of the service: most severe first. */
export function findingLines(findings: readonly Finding[]): string {
  if (findings.length === 0) return '';
  const rows = findings.map(({ severity, hop, field, message }) => [
    small(severity, 'SEVERITY_'),
    hop === undefined ? '' : `hop ${hop}`,
    field.replace(/^config\./, '').replace('extra_params.', ''),
    message,
  ]);
  return `\n${table(['SEVERITY', 'WHERE', 'FIELD', 'FINDING'], rows)}`;
}

import type { Finding } from '../../../gen/ts/agentllm/v1/finding.js';
import type { AdoptingWatcher, Adoption } from '../../../gen/ts/agentllm/v1/write.js';
import type { Body } from './from_file.js';
import { type Input, maskOf, UsageError } from './inputs.js';
import { counted, small, table, visible } from './print.js';
import type { Call } from './remote_command.js';
import { duration, flag, secret, text, word } from './values.js';

const group = 'Writing:';

/** What every write takes. */
export const writeInputs: readonly Input[] = [
  { name: 'reason', to: 'reason', kind: text, group, help: 'why, for the history, at most 500 characters' },
  { name: 'dry-run', to: 'validate_only', kind: flag, group, help: 'do all the checks and write nothing' },
  {
    name: 'request-id',
    to: 'request_id',
    kind: word('uuid'),
    group,
    help: 'name of this write: repeated with the same name within 24 hours it is not done twice',
  },
  {
    name: 'wait',
    to: 'wait_for_adoption.timeout',
    kind: duration,
    group,
    help: 'wait until the agent processes that watch have applied it, at most so long, up to 60000; it is done either way',
  },
];

/** The guard of a write: where the etag stands in its request. */
export const etagInput = (to: string, of = 'it'): Input => ({
  name: 'etag',
  to,
  kind: word('etag'),
  mask: '',
  group,
  help: `write only when ${of} still has this etag, as get shows it`,
});

export const keyInput: Input = {
  name: 'api-key',
  to: 'api_key',
  kind: secret,
  help: 'set an API key: asked for at a terminal, else read from standard input; never an argument',
};

/** An update without a field is a mistake, and without a mask the service would take what is present for one. */
export function requireChange({ inputs }: Call, body: Body, fields: readonly Input[]): void {
  const { message, touched } = inputs;
  if (maskOf(fields, touched, body.at).length > 0 || 'api_key' in message || 'clear_api_key' in message) return;
  throw new UsageError(
    'nothing to change: give an option with its new value, or --unset with the names of what to clear',
  );
}

/** What every write answers. */
interface WriteResponse {
  readonly revision: bigint;
  readonly adoption?: Adoption | undefined;
}

/** What a write did, and who has applied it where that was asked; `done` is a participle, `updated`. */
export function writeSummary(call: Call, done: string, what: string, { revision, adoption }: WriteResponse): string {
  const subject = visible(what);
  if (call.inputs.message['validate_only'] === true)
    return `dry run at revision ${revision}, nothing was written: ${subject} would be ${done}`;
  return `${done} ${subject} at revision ${revision}${adoption ? `\n${adoptionLine(adoption)}` : ''}`;
}

/** How many of those that are pending are named. */
const MAX_NAMES = 5;

/** `applied by 3 of 4 processes; pending: worker-7` */
function adoptionLine({ complete, applied_count, pending_count, pending }: Adoption): string {
  const all = applied_count + pending_count;
  if (all === 0) return complete ? 'no process watches what was changed' : 'who has applied it is not known';
  const line = `applied by ${applied_count} of ${counted(all, 'process', 'processes')}`;
  if (pending_count === 0) return line;
  const names = pending.slice(0, MAX_NAMES).map(nameOfWatcher);
  const more = pending_count > names.length ? ` and ${pending_count - names.length} more` : '';
  return `${line}; pending: ${names.join(', ')}${more}`;
}

/** A process by the name that it gave, else by the beginning of its id. */
const nameOfWatcher = ({ client_id, client_name }: AdoptingWatcher) => visible(client_name) || client_id.slice(0, 8);

/** Findings below the line of a write, the gravest first as they come. */
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

import type { Finding } from '../../gen/ts/agentllm/v1/finding.js';
import type { Body } from './from_file.js';
import { type Input, maskOf, UsageError } from './inputs.js';
import { small, table, visible } from './print.js';
import type { Call } from './remote.js';
import { said, secret, text, word } from './values.js';

const group = 'Writing:';

/** What every write takes. */
export const writeInputs: readonly Input[] = [
  { name: 'reason', to: 'reason', kind: text, group, help: 'why, for the history, at most 500 characters' },
  { name: 'dry-run', to: 'validate_only', kind: said, group, help: 'do all the checks and write nothing' },
  {
    name: 'request-id',
    to: 'request_id',
    kind: word('uuid'),
    group,
    help: 'name of this write: repeated with the same name within 24 hours it is not done twice',
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
export function refuseNothing({ given }: Call, body: Body, fields: readonly Input[]): void {
  const { message, touched } = given;
  if (maskOf(fields, touched, body.at).length > 0 || 'api_key' in message || 'clear_api_key' in message) return;
  throw new UsageError(
    'nothing to change: give an option with its new value, or --unset with the names of what to clear',
  );
}

/** What a write did, in one line; `done` is a participle, `updated`. */
export function wrote(call: Call, done: string, what: string, revision: bigint): string {
  const named = visible(what);
  if (call.given.message['validate_only'] !== true) return `${done} ${named} at revision ${revision}`;
  return `dry run at revision ${revision}, nothing was written: ${named} would be ${done}`;
}

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

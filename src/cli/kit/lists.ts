import type { AgentLLM } from '../../client/index.js';
import { type Input, UsageError } from './inputs.js';
import { cut, table } from './print.js';
import type { Call } from './remote_command.js';
import { agent, int64, integer } from './values.js';

/** The largest page size of the contract. */
const PAGE = 1000;

export const agentArgument: Input = { name: '<agent>', to: 'agent', kind: agent, help: 'the agent, by name or id' };

export const limitInput: Input = { name: 'limit', kind: integer, help: 'maximum number of rows (default: all)' };

export const minRevision: Input = {
  name: 'min-revision',
  to: 'min_revision',
  kind: int64,
  help: 'wait until the service has reached this revision, which a write prints',
};

interface Page {
  readonly revision: bigint;
  readonly next_page_token: string;
}

/** A column of a table: its header and the text of a cell. */
export type Column<Row> = readonly [head: string, cell: (row: Row) => string];

export interface List<Row> {
  /** The field of the response with the rows. */
  readonly field: string;
  readonly columns: readonly Column<Row>[];
  /** The text for an empty list, with the next command to type. */
  readonly empty: string;
  /** The text when no row matches the filter. */
  readonly noMatch?: string;
  /** The number of rows without --limit; absent: all. */
  readonly defaultLimit?: number;
  fetchPage(api: AgentLLM, request: object): Promise<Page>;
}

/** Prints all pages of a list. */
export async function printList<Row>(call: Call, list: List<Row>): Promise<undefined> {
  const { rows, revision } = await readAll(call, list);
  const isFiltered = Object.keys(call.inputs.message).some((field) => field !== 'min_revision');
  const empty = (isFiltered && list.noMatch) || list.empty;
  return call.print({ [list.field]: rows, revision }, () => tableOf(rows, { ...list, empty }, MAX_CELL_LENGTH));
}

interface Rows<Row> {
  readonly rows: Row[];
  readonly revision: bigint;
  /** Whether there are more rows than the limit. */
  readonly more: boolean;
}

/** Reads all pages. The revision is that of the first page: every row is at least as recent. */
export async function readAll<Row>(call: Call, { field, defaultLimit, fetchPage }: List<Row>): Promise<Rows<Row>> {
  const limit = call.local<number>('limit') ?? defaultLimit ?? Number.POSITIVE_INFINITY;
  if (limit < 1) throw UsageError.of([{ typed: `--limit ${limit}`, description: 'must be at least 1' }]);
  const rows: Row[] = [];
  let page_token = '';
  let revision: bigint | undefined;
  do {
    const page_size = Math.min(limit - rows.length, PAGE);
    const page = await fetchPage(call.api, call.request({ page_size, page_token }));
    rows.push(...((page as unknown as Record<string, Row[]>)[field] ?? []));
    revision ??= page.revision;
    page_token = page.next_page_token;
  } while (page_token !== '' && rows.length < limit);
  return { rows, revision, more: page_token !== '' };
}

/** Longer cells are truncated in lists; --json prints them in full. */
const MAX_CELL_LENGTH = 100;

/** @param longest the maximum length of a cell. */
export function tableOf<Row>(
  rows: readonly Row[],
  { columns, empty }: Pick<List<Row>, 'columns' | 'empty'>,
  longest = Number.POSITIVE_INFINITY,
): string {
  if (rows.length === 0) return empty;
  return table(
    columns.map(([head]) => head),
    rows.map((row) => columns.map(([, cell]) => cut(cell(row), longest))),
  );
}

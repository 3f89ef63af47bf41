import type { AgentLLM } from '../../client/index.js';
import { type Input, UsageError } from './inputs.js';
import { cut, table } from './print.js';
import type { Call } from './remote_command.js';
import { agent, int64, integer } from './values.js';

/** Most rows of one page, by the contract. */
const PAGE = 1000;

export const agentArgument: Input = { name: '<agent>', to: 'agent', kind: agent, help: 'the agent, by name or id' };

export const limitInput: Input = { name: 'limit', kind: integer, help: 'how many to show at most (default: all)' };

export const minRevision: Input = {
  name: 'min-revision',
  to: 'min_revision',
  kind: int64,
  help: 'wait until the service has this revision, as a write has printed it',
};

interface Page {
  readonly revision: bigint;
  readonly next_page_token: string;
}

/** A column of a table: its head and what stands in it. */
export type Column<Row> = readonly [head: string, cell: (row: Row) => string];

export interface List<Row> {
  /** The rows' field in the answer. */
  readonly field: string;
  readonly columns: readonly Column<Row>[];
  /** What to say when there are none, with what to type next. */
  readonly empty: string;
  /** What to say when there are none that a filter lets through. */
  readonly noMatch?: string;
  /** How many are shown without --limit; all when it is not said. */
  readonly defaultLimit?: number;
  fetchPage(api: AgentLLM, request: object): Promise<Page>;
}

/** Prints a whole list, all pages of it. */
export async function printList<Row>(call: Call, list: List<Row>): Promise<undefined> {
  const { rows, revision } = await readAll(call, list);
  const isFiltered = Object.keys(call.inputs.message).some((field) => field !== 'min_revision');
  const empty = (isFiltered && list.noMatch) || list.empty;
  return call.print({ [list.field]: rows, revision }, () => tableOf(rows, { ...list, empty }, MAX_CELL_LENGTH));
}

interface Rows<Row> {
  readonly rows: Row[];
  readonly revision: bigint;
  /** Whether there are others, beyond the limit. */
  readonly more: boolean;
}

/** Every row, page by page; the revision is that of the first page, which all rows are at least at. */
export async function readAll<Row>(
  call: Call,
  { field, defaultLimit: most, fetchPage: ask }: List<Row>,
): Promise<Rows<Row>> {
  const limit = call.local<number>('limit') ?? most ?? Number.POSITIVE_INFINITY;
  if (limit < 1) throw UsageError.of([{ typed: `--limit ${limit}`, description: 'must be at least 1' }]);
  const rows: Row[] = [];
  let page_token = '';
  let revision: bigint | undefined;
  do {
    const page_size = Math.min(limit - rows.length, PAGE);
    const page = await ask(call.api, call.request({ page_size, page_token }));
    rows.push(...((page as unknown as Record<string, Row[]>)[field] ?? []));
    revision ??= page.revision;
    page_token = page.next_page_token;
  } while (page_token !== '' && rows.length < limit);
  return { rows, revision, more: page_token !== '' };
}

/** What is longer is cut in lists; --json has it whole. */
const MAX_CELL_LENGTH = 100;

/** @param longest where a cell is cut. */
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

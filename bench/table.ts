import { type Figure, type Goal, isMet } from './row.js';

/** The result of one row. */
export interface Outcome {
  readonly name: string;
  readonly target: string;
  readonly figures: readonly Figure[];
  /** The error that stopped the measurement. */
  readonly error?: string;
}

const HEAD = ['what', 'ours', 'reference', 'ratio', 'target', 'met'];

/** A text table of all outcomes, followed by the notes. */
export function tableOf(outcomes: readonly Outcome[]): string {
  const lines = [HEAD, ...cellsOf(outcomes)];
  const widths = HEAD.map((_, column) => Math.max(...lines.map((line) => (line[column] as string).length)));
  const draw = (line: readonly string[]) =>
    line
      .map((cell, at) => pad(cell, widths[at] as number, at))
      .join('  ')
      .trimEnd();
  const table = [draw(HEAD), widths.map((width) => '-'.repeat(width)).join('  '), ...lines.slice(1).map(draw)];
  return [...table, '', ...notesOf(outcomes)].join('\n').trimEnd();
}

/** The same table in Markdown. */
export function markdownOf(outcomes: readonly Outcome[]): string {
  const draw = (line: readonly string[]) => `| ${line.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  const rule = '|---|--:|--:|--:|---|---|';
  return [draw(HEAD), rule, ...cellsOf(outcomes).map(draw), '', ...notesOf(outcomes).map((note) => `- ${note}`)].join(
    '\n',
  );
}

/** Figures are right-aligned. */
const pad = (cell: string, width: number, column: number) =>
  column >= 1 && column <= 3 ? cell.padStart(width) : cell.padEnd(width);

const cellsOf = (outcomes: readonly Outcome[]): string[][] =>
  outcomes.flatMap(({ name, figures, error }) => [
    ...figures.map(cellsOfFigure),
    ...(error === undefined ? [] : [[`${name}: failed`, '', '', '', '', 'NO']]),
  ]);

function cellsOfFigure(figure: Figure): string[] {
  const { what, unit, ours, reference, compared, goal } = figure;
  const met = isMet(figure);
  return [
    what,
    amount(ours, unit),
    amount(reference, unit),
    compared === undefined ? '' : comparison(compared, unit, goal),
    goal ? goalText(goal, unit) : '',
    met === undefined ? '' : met ? 'yes' : 'NO',
  ];
}

const amount = (value: number | undefined, unit: string) => (value === undefined ? '' : `${short(value)} ${unit}`);

/** Formats a number with three significant digits; numbers from 100 on as integers. */
export function short(value: number): string {
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en').replaceAll(',', ' ');
  return String(Number(value.toPrecision(3)));
}

function comparison(compared: number, unit: string, goal: Goal | undefined): string {
  if (goal?.kind === 'difference at most') return `${compared < 0 ? '' : '+'}${compared.toFixed(2)} ${unit}`;
  return compared.toFixed(2);
}

function goalText({ kind, value }: Goal, unit: string): string {
  if (kind === 'ratio at least') return `≥ ${value.toFixed(2)}`;
  if (kind === 'ratio above') return `> ${value.toFixed(2)}`;
  return kind === 'ratio at most' ? `≤ ${value.toFixed(2)}` : `≤ +${value} ${unit}`;
}

const notesOf = (outcomes: readonly Outcome[]): string[] =>
  outcomes.flatMap(({ name, figures, error }) => [
    ...figures.flatMap(({ what, note }) => (note === undefined ? [] : [`${what}: ${note}`])),
    ...(error === undefined ? [] : [`${name}: ${error.split('\n')[0]}`]),
  ]);

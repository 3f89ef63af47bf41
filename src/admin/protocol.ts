/**
 * What a command and the service say to each other over the admin socket: one line of JSON with the command, then
 * lines of JSON with what it prints, the last of them with its exit code. An empty object says that it still runs.
 */
import { join, resolve } from 'node:path';
import { z } from 'zod';

export const request = z.object({
  /** As it is typed: `migrate status`. */
  command: z.string().max(100),
  options: z.record(z.string(), z.unknown()).default({}),
});
export type AdminRequest = z.output<typeof request>;

export const answer = z.object({
  out: z.string().optional(),
  err: z.string().optional(),
  exit: z.number().int().optional(),
});
export type AdminAnswer = z.output<typeof answer>;

/** Where a command prints: to a terminal, or through the socket to one. */
export interface Say {
  /** A line of the answer. */
  out(text: string): void;
  /** A line of what goes on beside it: progress and errors. */
  err(text: string): void;
}

/** One directory, which only its owner may enter, for one socket. */
export const adminDirectory = (dataDir: string): string => join(resolve(dataDir), '.admin');
export const ADMIN_SOCKET = 'admin.sock';

/** How often a command that runs says so. */
export const BEAT_MS = 1_000;

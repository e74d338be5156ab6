import { closeSync, openSync, readSync } from 'node:fs';

/** What a program file is, as far as RPAL cares. */
export type ProgramKind =
  /** Position independent: may call and be called. */
  | 'pie'
  /** Linked to a fixed address (ET_EXEC): may call only, its data is outside of any slot. */
  | 'fixed'
  /** An ELF file of another machine, or no program. */
  | 'foreign'
  /** No ELF file: a script, for example. */
  | 'other';

const headerBytes = 20;
const elfMagic = 0x464c457f;
const class64 = 2;
const machineX8664 = 62;
const typeExec = 2;
const typeDyn = 3;

/** Reads what the program at `path` is. */
export function programKind(path: string): ProgramKind {
  const header = Buffer.alloc(headerBytes);
  const file = openSync(path, 'r');
  try {
    if (readSync(file, header, 0, headerBytes, 0) < headerBytes) return 'other';
  } finally {
    closeSync(file);
  }
  if (header.readUInt32LE(0) !== elfMagic) return 'other';
  if (header[4] !== class64 || header.readUInt16LE(18) !== machineX8664) return 'foreign';
  switch (header.readUInt16LE(16)) {
    case typeExec:
      return 'fixed';
    case typeDyn:
      return 'pie';
    default:
      return 'foreign';
  }
}

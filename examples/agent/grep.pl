# A tool in Perl, with its core modules alone: searches the files of this folder for a regular expression.
#
# A pattern may backtrack for ever. Then the kernel ends this process at the deadline in grep.json, and starts it again
# for the next call.

use strict;
use warnings;
use Encode qw(decode);
use File::Find qw(find);
use JSON::PP;

my $ENOUGH      = 40;
my %description = (
    name         => 'grep',
    version      => '0.1.0',
    kind         => 'tool',
    capabilities => ['fs:read:.'],
    inputs       => {
        search => {
            description => 'Finds the lines that match a Perl regular expression.',
            type        => 'object',
            required    => ['pattern'],
            properties  => {
                pattern => { type => 'string' },
                name    => { type => 'string', description => 'Only in files with such a name: * and ? are known.' },
            },
        },
    },
    outputs => { search => { type => 'object', required => [ 'matches', 'complete' ] } },
);

sub fail { die { code => $_[0], message => $_[1] } }

sub text_of {
    my ( $args, $name, $default ) = @_;
    my $value = $args->{$name} // $default // fail( 'bad_request', "args.$name: expected a string" );
    return ref $value ? fail( 'bad_request', "args.$name: expected a string" ) : $value;
}

sub search {
    my ($args) = @_;
    my $pattern = text_of( $args, 'pattern' );
    my $regex   = eval { qr/$pattern/ } // fail( 'bad_request', "args.pattern: $@" =~ s/ at \S+ line \d+\.\n\z//r );
    my $name    = quotemeta text_of( $args, 'name', '*' );
    $name =~ s/\\\*/.*/g;
    $name =~ s/\\\?/./g;
    my @files;
    find( { no_chdir => 1, wanted => sub { push @files, $_ if -T && -f && m{/$name\z} } }, '.' );
    my @matches;
    for my $file ( sort @files ) {
        open my $lines, '<', $file or next;
        while ( my $line = decode( 'UTF-8', scalar <$lines> // last ) ) {
            chomp $line;
            next if $line !~ $regex;
            return { matches => \@matches, complete => JSON::PP::false } if @matches == $ENOUGH;
            push @matches, { file => $file =~ s{\A\./}{}r, line => $., text => substr $line, 0, 200 };
        }
    }
    return { matches => \@matches, complete => JSON::PP::true };
}

sub result {
    my ($request) = @_;
    return { status => 'ok' } if $request->{method} eq 'health';
    return \%description      if $request->{method} eq 'describe';
    my $params = $request->{params};
    return search( $params->{args} ) if $params->{op} eq 'search';
    return fail( 'unsupported_op', "grep does not know '$params->{op}'" );
}

my $json = JSON::PP->new->utf8;
binmode $_ for *STDIN, *STDOUT;
$| = 1;
while ( my $line = <STDIN> ) {
    my $request = $json->decode($line);
    next if $request->{method} eq 'cancel';
    my $result = eval { result($request) };
    my $error  = ref $@ ? $@ : { code => 'internal', message => "$@" };
    my @reply  = $result ? ( ok => JSON::PP::true, result => $result ) : ( ok => JSON::PP::false, error => $error );
    print $json->encode( { id => $request->{id}, @reply } ), "\n";
}
